// Time steps of miniWeather's scheme with fused loops; see equations.py, of which these are the same formulas.
//
// A row of cells goes through all three stages of a step along x, a block of columns through those along z, before the
// next one is touched, so that what is worked on stays in the cache.

#include <algorithm>
#include <cstdint>
#include <vector>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

namespace {

// Takes numbers too small for full precision for zero as long as it lives; air far from a wave is full of them, and
// processors are slow with them. Threads keep their own setting otherwise.
struct SmallNumbersAreZero {
#ifdef __SSE__
    unsigned before = _mm_getcsr();
    SmallNumbersAreZero() { _mm_setcsr(before | 0x8040); }
    ~SmallNumbersAreZero() { _mm_setcsr(before); }
#endif
};

constexpr double GAMMA = 1.40027894002789400278940027894;
constexpr double HYPERVISCOSITY = 0.05 / 16;
constexpr double GRAVITY = 9.8;
constexpr int BLOCK = 32;  // columns that go through a step along z together

// Binomial coefficients of (1 + y)^gamma: as many as rounding sees for |y| up to 0.25, far more than any air has.
template <class T> constexpr int TERMS = sizeof(T) == 4 ? 10 : 24;

template <class T> struct Series {
    T c[TERMS<T>];
    constexpr Series() : c() {
        double value = 1;
        for (int k = 1; k <= TERMS<T>; ++k) c[k - 1] = T(value *= (GAMMA - k + 1) / k);
    }
};
template <class T> constexpr Series<T> SERIES{};

// Perturbation of pressure over that of the background, (1 + y)^gamma - 1, without the difference of two large numbers.
template <class T> inline T pressure_ratio(T y) {
    T sum = SERIES<T>.c[TERMS<T> - 1] * y;
    for (int k = TERMS<T> - 2; k >= 0; --k) sum = (sum + SERIES<T>.c[k]) * y;
    return sum;
}

template <class T> inline T value(T a, T b, T c, T d) { return (T(7) * (b + c) - (a + d)) * T(1.0 / 12); }
template <class T> inline T third(T a, T b, T c, T d) { return T(3) * (b - c) + (d - a); }

// One member: density, momenta along x and z, density times potential temperature.
template <class T> struct Member {
    T *q[4];
    const T *dens, *dens_theta, *pressure;        // of cells
    const T *face_dens, *face_theta, *face_pressure;
    const T *ghost_ratio;                         // two below, two above
    const T *jet_rows;                            // shares of rows; null: no jet
    T jet_speed, jet_theta;
    const T *force;                               // null: none
    T seconds;
};

template <class T> void row_along_x(const Member<T> &m, int z, int nx, T dx, std::vector<T> &work) {
    T *start[4], *cur[4], *flux[4];
    for (int v = 0; v < 4; ++v) {
        start[v] = &work[v * nx];
        cur[v] = &work[4 * nx + v * (nx + 4)];
        flux[v] = &work[8 * nx + 16 + v * (nx + 1)];
        std::copy_n(m.q[v] + z * nx, nx, start[v]);
        std::copy_n(start[v], nx, cur[v] + 2);
    }
    const T dens = m.dens[z], theta = m.dens_theta[z], over_theta = 1 / theta, pressure = m.pressure[z];
    for (int stage = 3; stage >= 1; --stage) {
        const T seconds = m.seconds / stage, courant = seconds / dx, hv = T(HYPERVISCOSITY);
        for (int v = 0; v < 4; ++v) {
            cur[v][0] = cur[v][nx], cur[v][1] = cur[v][nx + 1];
            cur[v][nx + 2] = cur[v][2], cur[v][nx + 3] = cur[v][3];
        }
        if (m.jet_rows && m.jet_rows[z])
            for (int x = 0; x < 2; ++x) {
                const T full = cur[0][x] + dens, share = m.jet_rows[z];
                cur[1][x] = share * (full * m.jet_speed) + (1 - share) * cur[1][x];
                cur[3][x] = share * (full * m.jet_theta - theta) + (1 - share) * cur[3][x];
            }
        const T *r = cur[0], *u = cur[1], *w = cur[2], *t = cur[3];
        T *fr = flux[0], *fu = flux[1], *fw = flux[2], *ft = flux[3];
#pragma GCC ivdep
        for (int f = 0; f <= nx; ++f) {
            const T ui = value(u[f], u[f + 1], u[f + 2], u[f + 3]), ti = value(t[f], t[f + 1], t[f + 2], t[f + 3]);
            const T wind = ui / (value(r[f], r[f + 1], r[f + 2], r[f + 3]) + dens);
            const T push = pressure * pressure_ratio(ti * over_theta);
            fr[f] = courant * ui + hv * third(r[f], r[f + 1], r[f + 2], r[f + 3]);
            fu[f] = courant * (ui * wind + push) + hv * third(u[f], u[f + 1], u[f + 2], u[f + 3]);
            fw[f] = courant * value(w[f], w[f + 1], w[f + 2], w[f + 3]) * wind +
                    hv * third(w[f], w[f + 1], w[f + 2], w[f + 3]);
            ft[f] = courant * (ti + theta) * wind + hv * third(t[f], t[f + 1], t[f + 2], t[f + 3]);
        }
        for (int v = 0; v < 4; ++v) {
            T *out = cur[v] + 2;
            const T *in = start[v], *fx = flux[v];
#pragma GCC ivdep
            for (int x = 0; x < nx; ++x) out[x] = in[x] - fx[x + 1] + fx[x];
        }
        if (m.force)
            for (int x = 0; x < nx; ++x) cur[2][x + 2] += seconds * m.force[z * nx + x];
    }
    for (int v = 0; v < 4; ++v) std::copy_n(cur[v] + 2, nx, m.q[v] + z * nx);
}

template <class T> void columns_along_z(const Member<T> &m, int first, int width, int nz, int nx, T dz, std::vector<T> &work) {
    const int padded = (nz + 4) * BLOCK;
    T *start = &work[0], *cur = start + 4 * padded, *next = cur + 4 * padded, *flux = next + 4 * padded;
    auto row = [&](T *of, int v, int z) { return of + v * padded + (z + 2) * BLOCK; };
    for (int v = 0; v < 4; ++v)
        for (int z = 0; z < nz; ++z) {
            const T *from = m.q[v] + z * nx + first;
            std::copy_n(from, width, row(start, v, z)), std::copy_n(from, width, row(cur, v, z));
        }
    for (int stage = 3; stage >= 1; --stage) {
        const T seconds = m.seconds / stage, courant = seconds / dz, hv = T(HYPERVISCOSITY);
        for (int ghost = 0; ghost < 4; ++ghost) {
            const int z = ghost < 2 ? ghost - 2 : nz + ghost - 2, edge = ghost < 2 ? 0 : nz - 1;
            for (int x = 0; x < width; ++x) {
                row(cur, 0, z)[x] = row(cur, 0, edge)[x];
                row(cur, 1, z)[x] = row(cur, 1, edge)[x] * m.ghost_ratio[ghost];
                row(cur, 2, z)[x] = 0;
                row(cur, 3, z)[x] = row(cur, 3, edge)[x];
            }
        }
        for (int face = 0; face <= nz; ++face) {
            T *now = flux + (face % 2) * 4 * BLOCK, *before = flux + ((face + 1) % 2) * 4 * BLOCK;
            const T inside = face == 0 || face == nz ? 0 : 1;  // nothing goes through a wall
            const T dens = m.face_dens[face], theta = m.face_theta[face], pressure = m.face_pressure[face];
            const T over_theta = 1 / theta;
            const T *r[4], *u[4], *w[4], *t[4];
            for (int k = 0; k < 4; ++k) {
                r[k] = row(cur, 0, face - 2 + k), u[k] = row(cur, 1, face - 2 + k);
                w[k] = row(cur, 2, face - 2 + k), t[k] = row(cur, 3, face - 2 + k);
            }
#pragma GCC ivdep
            for (int x = 0; x < width; ++x) {
                const T wi = inside * value(w[0][x], w[1][x], w[2][x], w[3][x]);
                const T ti = value(t[0][x], t[1][x], t[2][x], t[3][x]);
                const T wind = wi / (value(r[0][x], r[1][x], r[2][x], r[3][x]) + dens);
                const T push = pressure * pressure_ratio(ti * over_theta);
                now[x] = courant * wi + hv * inside * third(r[0][x], r[1][x], r[2][x], r[3][x]);
                now[BLOCK + x] = courant * value(u[0][x], u[1][x], u[2][x], u[3][x]) * wind +
                                 hv * third(u[0][x], u[1][x], u[2][x], u[3][x]);
                now[2 * BLOCK + x] = courant * (wi * wind + push) + hv * third(w[0][x], w[1][x], w[2][x], w[3][x]);
                now[3 * BLOCK + x] = courant * (ti + theta) * wind + hv * third(t[0][x], t[1][x], t[2][x], t[3][x]);
            }
            if (face == 0) continue;
            const int z = face - 1;
            for (int v = 0; v < 4; ++v) {
                T *out = row(next, v, z);
                const T *in = row(start, v, z), *up = now + v * BLOCK, *down = before + v * BLOCK;
#pragma GCC ivdep
                for (int x = 0; x < width; ++x) out[x] = in[x] - up[x] + down[x];
            }
            T *out = row(next, 2, z);
            const T *here = row(cur, 0, z);
            for (int x = 0; x < width; ++x) out[x] -= seconds * T(GRAVITY) * here[x];
            if (m.force)
                for (int x = 0; x < width; ++x) out[x] += seconds * m.force[z * nx + first + x];
        }
        std::swap(cur, next);
    }
    for (int v = 0; v < 4; ++v)
        for (int z = 0; z < nz; ++z) std::copy_n(row(cur, v, z), width, m.q[v] + z * nx + first);
}

template <class T>
void step(int members, int nz, int nx, T dx, T dz, int x_first, T **q, const T *seconds, const T **cells,
          const T **faces, const T *ghost_ratio, const T *jet_rows, const T *jet, const T *force) {
    const SmallNumbersAreZero fast;
    std::vector<T> along_x(12 * nx + 32), along_z((12 * (nz + 4) + 8) * BLOCK);
    for (int i = 0; i < members; ++i) {
        Member<T> m;
        const long plane = long(nz) * nx;
        for (int v = 0; v < 4; ++v) m.q[v] = q[v] + i * plane;
        m.dens = cells[0] + i * nz, m.dens_theta = cells[1] + i * nz, m.pressure = cells[2] + i * nz;
        m.face_dens = faces[0] + i * (nz + 1), m.face_theta = faces[1] + i * (nz + 1);
        m.face_pressure = faces[2] + i * (nz + 1);
        m.ghost_ratio = ghost_ratio + i * 4;
        m.jet_rows = jet_rows ? jet_rows + i * nz : nullptr;
        m.jet_speed = jet ? jet[2 * i] : 0, m.jet_theta = jet ? jet[2 * i + 1] : 0;
        m.force = force ? force + i * plane : nullptr;
        m.seconds = seconds[i];
        for (int sweep = 0; sweep < 2; ++sweep)
            if ((sweep == 0) == bool(x_first))
                for (int z = 0; z < nz; ++z) row_along_x(m, z, nx, dx, along_x);
            else
                for (int x = 0; x < nx; x += BLOCK)
                    columns_along_z(m, x, std::min(BLOCK, nx - x), nz, nx, dz, along_z);
    }
}

}  // namespace

#define STEP(NAME, T)                                                                                             \
    extern "C" void NAME(int members, int nz, int nx, T dx, T dz, int x_first, T **q, const T *seconds,           \
                         const T **cells, const T **faces, const T *ghost_ratio, const T *jet_rows,          \
                         const T *jet, const T *force) {                                                           \
        step<T>(members, nz, nx, dx, dz, x_first, q, seconds, cells, faces, ghost_ratio, jet_rows, jet, force);    \
    }
STEP(step_float32, float)
STEP(step_float64, double)
