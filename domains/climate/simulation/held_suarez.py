"""The Held-Suarez atmosphere on Google's ``dinosaur`` dynamical core.

A dry global atmosphere without mountains, seasons or a day: temperature is relaxed to a fixed
zonally symmetric profile and the wind near the ground is slowed down. What is left are jets and the
chaotic storms that grow on them, which is the part of the weather that a forecast has to get right.

Source: Held and Suarez (1994), https://doi.org/10.1175/1520-0477(1994)075<1825:APFTIO>2.0.CO;2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sciml.core.errors import MissingExtraError, RunError

MEAN_SURFACE_PRESSURE_PA = 1.0e5
START_PERTURBATION_PA = 5.0e3
REFERENCE_TEMPERATURE_K = 288.0
# Hyperdiffusion by this power of the Laplacian. A lower one damps the storms themselves: the second power
# leaves v at 250 hPa with a standard deviation of 8 m/s in middle latitudes, the fourth with 14.
DIFFUSION_ORDER = 4


@dataclasses.dataclass(frozen=True)
class Resolution:
    """Holds what goes with a spectral truncation.

    Attributes:
        wavenumber: largest total wavenumber that is kept.
        num_latitudes: latitudes of the Gaussian grid, where products are free of aliasing, and of the
            equidistant grid of the output; there are twice as many longitudes.
        step_minutes: time step.
        diffusion_hours: e-folding time of the smallest scale under the hyperdiffusion.
    """

    wavenumber: int
    num_latitudes: int
    step_minutes: int
    diffusion_hours: float


LEVEL_VARIABLES = ("geopotential", "temperature", "u_component_of_wind", "v_component_of_wind")
SURFACE_VARIABLES = (
    "2m_temperature",
    "mean_sea_level_pressure",
    "10m_u_component_of_wind",
    "10m_v_component_of_wind",
)
DINOSAUR_UNITS = {
    "geopotential": "m**2/s**2",
    "temperature": "degK",
    "u_component_of_wind": "m/s",
    "v_component_of_wind": "m/s",
    "2m_temperature": "degK",
    "mean_sea_level_pressure": "pascal",
    "10m_u_component_of_wind": "m/s",
    "10m_v_component_of_wind": "m/s",
}
Fields = dict[str, np.ndarray]

RESOLUTIONS = {
    "T21": Resolution(21, 32, 30, 6.0),
    "T31": Resolution(31, 48, 20, 4.0),
    "T42": Resolution(42, 64, 15, 3.0),
}


class HeldSuarez:
    """Runs a simulation, seen on an equidistant latitude-longitude grid.

    Args:
        truncation: one of ``RESOLUTIONS``.
        num_layers: equally thick layers in sigma, the pressure over that at the ground.
        pressure_levels: where the fields are looked at, hPa, increasing, within the layers.
        interval_hours: time between two looks.
        seed: where the atmosphere at rest is disturbed.

    Raises:
        MissingExtraError: ``dinosaur`` is not installed.
    """

    def __init__(
        self, truncation: str, *, num_layers: int, pressure_levels: Sequence[int], interval_hours: int, seed: int
    ) -> None:
        try:
            import jax
            from dinosaur import primitive_equations, scales, sigma_coordinates
        except ImportError as error:
            raise MissingExtraError("dinosaur", extra="simulate", purpose="to simulate an atmosphere") from error

        self.units = scales.units
        self.resolution = RESOLUTIONS[truncation]
        self.specs = primitive_equations.PrimitiveEquationsSpecs.from_si()
        self.vertical = sigma_coordinates.SigmaCoordinates.equidistant(num_layers)
        # The same spherical harmonics on two sets of points: a Gaussian grid to step on, and the
        # equidistant one of reanalysis archives to look at. Fields are evaluated there, not interpolated.
        self.step_coords, self.output_coords = (self._coordinates(spacing) for spacing in ("gauss", "equiangular"))
        start, features = self._start()
        self.reference_temperature = features["ref_temperatures"]
        self.pressure_levels = np.asarray(pressure_levels)
        self._advance = jax.jit(self._interval(interval_hours))
        self._observe = jax.jit(self._fields)
        self._state = start(jax.random.PRNGKey(seed))

    @property
    def latitude(self) -> np.ndarray:
        """Returns the latitudes of the output, degrees north, from north to south as reanalyses store them."""
        sin_latitude = self.output_coords.horizontal.nodal_axes[1]
        return np.round(np.degrees(np.arcsin(sin_latitude)), 6)[::-1]

    @property
    def longitude(self) -> np.ndarray:
        """Returns the longitudes of the output, degrees east, in [0, 360)."""
        return np.round(np.degrees(self.output_coords.horizontal.nodal_axes[0]), 6)

    def advance(self, num_intervals: int) -> Iterator[Fields]:
        """Yields the fields after each of the next intervals.

        Args:
            num_intervals: how many intervals to go.

        Yields:
            One array a variable, SI units, float32: ``(level, latitude, longitude)`` for a variable in
            ``LEVEL_VARIABLES`` and ``(latitude, longitude)`` for one in ``SURFACE_VARIABLES``.

        Raises:
            RunError: the simulation blew up.
        """
        for _ in range(num_intervals):
            self._state = self._advance(self._state)
            fields = {name: self._to_si(name, field) for name, field in self._observe(self._state).items()}
            if not all(np.isfinite(field).all() for field in fields.values()):
                raise RunError("the simulated atmosphere blew up; another seed or fewer layers may help")
            yield fields

    def spin_up(self, num_intervals: int) -> Iterator[int]:
        """Runs without looking, until the start from rest is forgotten; yields the interval's number."""
        for number in range(num_intervals):
            self._state = self._advance(self._state)
            yield number

    def _coordinates(self, spacing: str) -> Any:
        """Returns the sphere and its layers, with the latitudes spaced as given."""
        from dinosaur import coordinate_systems, spherical_harmonic

        grid = spherical_harmonic.LatLonGrid.construct(
            max_wavenumber=self.resolution.wavenumber,
            gaussian_nodes=self.resolution.num_latitudes // 2,
            latitude_spacing=spacing,
            radius=self.specs.radius,
        )
        return coordinate_systems.CoordinateSystem(grid, self.vertical)

    def _start(self) -> tuple[Any, Any]:
        """Returns an atmosphere at rest with one ripple in its pressure, where the seed puts it."""
        from dinosaur import primitive_equations_states

        return primitive_equations_states.isothermal_rest_atmosphere(
            self.step_coords,
            self.specs,
            tref=REFERENCE_TEMPERATURE_K * self.units.degK,
            p0=MEAN_SURFACE_PRESSURE_PA * self.units.pascal,
            p1=START_PERTURBATION_PA * self.units.pascal,
        )

    def _interval(self, hours: int) -> Any:
        """Returns the function that steps a state over one output interval."""
        from dinosaur import held_suarez, primitive_equations, time_integration

        coords, specs = self.step_coords, self.specs
        no_mountains = np.zeros(coords.horizontal.modal_shape)
        equations = time_integration.compose_equations(
            [
                primitive_equations.PrimitiveEquationsSigma(self.reference_temperature, no_mountains, coords, specs),
                held_suarez.HeldSuarezForcingSigma(coords, specs, self.reference_temperature),
            ]
        )
        step = specs.nondimensionalize(self.resolution.step_minutes * self.units.minute)
        diffusion = time_integration.horizontal_diffusion_step_filter(
            coords.horizontal,
            step,
            tau=specs.nondimensionalize(self.resolution.diffusion_hours * self.units.hour),
            order=DIFFUSION_ORDER,
        )
        step_once = time_integration.step_with_filters(time_integration.imex_rk_sil3(equations, step), [diffusion])
        return time_integration.repeated(step_once, hours * 60 // self.resolution.step_minutes)

    def _fields(self, state: Any) -> dict[str, Any]:
        """Returns the variables of the archive in dinosaur's own units, as ``([level,] longitude, latitude)``."""
        import jax.numpy as jnp
        from dinosaur import primitive_equations

        coords, specs = self.output_coords, self.specs
        diagnostics = primitive_equations.compute_diagnostic_state_sigma(state, coords)
        u, v = (component / coords.horizontal.cos_lat for component in diagnostics.cos_lat_u)
        temperature = self.reference_temperature[:, None, None] + diagnostics.temperature_variation
        geopotential = primitive_equations.get_geopotential_on_sigma(
            temperature,
            nodal_orography=np.zeros(coords.horizontal.nodal_shape),
            sigma=self.vertical,
            gravity_acceleration=specs.g,
            ideal_gas_constant=specs.R,
        )
        pressure = jnp.exp(coords.horizontal.to_nodal(state.log_surface_pressure))[0]

        # Hydrostatic columns are close to linear in log pressure. The weights of that interpolation are
        # those of the unit vectors, and serve all variables.
        log_sigma = np.log(self.vertical.centers)
        levels = specs.nondimensionalize(self.pressure_levels.astype(float) * self.units.hPa)
        wanted = jnp.log(levels[:, None, None] / pressure)
        weights = jnp.stack([jnp.interp(wanted, log_sigma, unit) for unit in np.eye(len(log_sigma))])
        # No layer lies at the ground (sigma = 1): go on from the two lowest along the same straight line.
        beyond = -log_sigma[-1] / (log_sigma[-1] - log_sigma[-2])

        on_levels = zip(LEVEL_VARIABLES, (geopotential, temperature, u, v), strict=True)
        at_ground = (temperature[-1] + beyond * (temperature[-1] - temperature[-2]), pressure, u[-1], v[-1])
        return {name: jnp.einsum("skxy,sxy->kxy", weights, field) for name, field in on_levels} | dict(
            zip(SURFACE_VARIABLES, at_ground, strict=True)
        )

    def _to_si(self, name: str, field: Any) -> np.ndarray:
        """Converts from dinosaur's units and axes to those of the archive."""
        unit = self.units.parse_units(DINOSAUR_UNITS[name])
        values = self.specs.dimensionalize(np.asarray(field), unit).magnitude
        return np.ascontiguousarray(np.swapaxes(values, -1, -2)[..., ::-1, :], dtype=np.float32)
