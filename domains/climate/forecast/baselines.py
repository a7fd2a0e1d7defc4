"""Predicts what a forecast has to beat: yesterday's weather, the season's mean, and a linear model of the
leading patterns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.batch import FieldBatch
from domains.climate.data.schema import ClimateSchema, ClimateStatistics, cell_area_weights
from domains.climate.data.store import ClimateStore
from domains.climate.forecast.metrics import FieldsAt, as_fields
from sciml.core.duration import format_hours
from sciml.core.errors import DataError, RunError
from sciml.core.files import atomic_file
from sciml.domain.protocol import Prediction, Predictor
from sciml.domain.score import Baseline
from sciml.report.style import AMBER, GRAY, GREEN, PLUM, RUST

PERSISTENCE = Baseline("persistence", GRAY, "s")
CLIMATOLOGY = Baseline("climatology", AMBER, "D")
WEEKLY_CLIMATOLOGY = Baseline("weekly_climatology", RUST, "v")
MEAN_CLIMATOLOGY = Baseline("mean_climatology", PLUM, "X")
RIDGE = Baseline("ridge", GREEN, "^")
BASELINES = (PERSISTENCE, CLIMATOLOGY, WEEKLY_CLIMATOLOGY, MEAN_CLIMATOLOGY, RIDGE)

ReadStates = Callable[[np.ndarray], Any]
"""States (n, channel, latitude, longitude) in physical units at the given positions of the training period."""

PENALTIES = tuple(float(p) for p in 10.0 ** np.arange(-6, 2.01, 0.5))
HELD_OUT_SHARE = 0.2
MIN_PAIRS = 20
MAX_BYTES = 2**30
CHUNK = 64
FORMAT = "sciml-climate-ridge-1"


def baselines_of(store: ClimateStore | None, lead_times: Sequence[float]) -> dict[Baseline, Predictor]:
    """Returns the baselines that the training period of a store allows, fitted when they are first asked."""
    if store is None:
        return {PERSISTENCE: persistence}
    train = store.indices("train")
    cache = store.path / "ridge.safetensors"
    ridge = RidgeBaseline(
        lambda positions: store.read(train[positions]), store.hours[train], store.schema, store.statistics, cache=cache
    )
    baselines: dict[Baseline, Predictor] = {
        PERSISTENCE: persistence,
        CLIMATOLOGY: climatology(store.climatology),
        WEEKLY_CLIMATOLOGY: climatology(store.weekly_climatology),
        MEAN_CLIMATOLOGY: climatology(store.mean_climatology),
    }
    # A few days of data are too few for a regression; the other baselines stand without it.
    if all(ridge.num_pairs(lead) >= MIN_PAIRS for lead in lead_times):
        baselines[RIDGE] = ridge
    return baselines


def persistence(batch: FieldBatch) -> Prediction:
    """Predicts that the weather stays as it was at the initial time."""
    return Prediction({"fields": batch.initial.float()})


def climatology(fields_at: FieldsAt) -> Predictor:
    """Returns the baseline that predicts the mean of the training period at the valid time, as ``fields_at`` has it."""

    def predict(batch: FieldBatch) -> Prediction:
        return Prediction({"fields": as_fields(fields_at, batch.valid_time).to(batch.state.device, torch.float32)})

    return predict


class RidgeBaseline:
    """Predicts the leading principal components a lead time later from those at one time, by ridge regression.

    The components (EOFs) are those of anomalies from the mean map of the training period, divided by each
    channel's standard deviation and weighted by cell area. Map and components are found from at most
    ``max_states`` evenly spaced training states (fewer where they would fill more than ``MAX_BYTES``), which
    bounds the memory; then every training state is projected, read in small chunks, so that the regression
    itself sees all pairs. The penalty is chosen among ``PENALTIES`` times the mean variance of the components
    by the error on the last fifth of the training period, after a gap of one lead time; with the chosen
    penalty the regression is fitted once more on all of it. Each lead time is fitted when it is first asked
    for. A forecast starts from ``batch.initial`` and goes to its lead time in one step.

    Source: the linear baseline of Rasp et al. (2020), WeatherBench, https://doi.org/10.1029/2020MS002203,
    with principal components in place of grid points.

    Args:
        read: reads training states by their position in ``times``.
        times: hours since 1970 of the training states, increasing; gaps are allowed.
        schema: channels and grid.
        statistics: of the training period; its ``std`` makes the channels comparable.
        cache: a file (.safetensors) that keeps what was fitted, if it was fitted on the same data.
        num_components: how many principal components; fewer where the states do not have as many.
        max_states: most states that are held in memory at once.
    """

    def __init__(
        self,
        read: ReadStates,
        times: Float[np.ndarray, "time"],
        schema: ClimateSchema,
        statistics: ClimateStatistics,
        *,
        cache: Path | None = None,
        num_components: int = 100,
        max_states: int = 2000,
    ) -> None:
        self.read, self.times, self.schema, self.cache = read, np.asarray(times, dtype=np.float64), schema, cache
        self.num_components, self.max_states = num_components, max_states
        area = torch.from_numpy(cell_area_weights(schema.latitude))[:, None]
        std = statistics.std.detach().cpu().double().clamp_min(torch.finfo(torch.float32).tiny)
        cells = len(schema.channels) * schema.grid_shape[0] * schema.grid_shape[1]
        # Squares of scaled anomalies, summed over cells and channels, are their mean square over the globe.
        self._scale = ((area / cells).sqrt() / std[:, None, None]).float().expand(-1, *schema.grid_shape)
        self._tensors: dict[str, Tensor] = {}

    def __call__(self, batch: FieldBatch) -> Prediction:
        """Forecasts each sample at its own next lead time."""
        hours = batch.next_lead_time.detach().cpu().double()
        fields = torch.empty_like(batch.initial, dtype=torch.float32)
        for lead in hours.unique().tolist():
            operator = self.operator(lead).to(batch.initial.device)
            chosen = (hours == lead).to(batch.initial.device)
            scores = self._project(batch.initial[chosen])
            fields[chosen] = self._reconstruct(torch.addmm(operator[-1], scores, operator[:-1]))
        return Prediction({"fields": fields})

    def num_pairs(self, lead_hours: float) -> int:
        """Returns how many pairs of training states lie a lead time apart."""
        return len(self._pairs(lead_hours)[0])

    def operator(self, lead_hours: float) -> Float[Tensor, "feature component"]:
        """Returns the regression for a lead time, intercept in the last row; fitted or read from the cache at first.

        Raises:
            DataError: where too few training states lie that far apart.
        """
        name = f"operator.{lead_hours:g}"
        if not self._tensors:
            self._tensors = self._read_cache() or self._fit_components()
        if name not in self._tensors:
            self._tensors[name] = self._fit_operator(lead_hours)
            self._write_cache()
        return self._tensors[name]

    def _fit_components(self) -> dict[str, Tensor]:
        """Returns mean map and patterns by the Gram matrix of few states, then the scores (time, component) of all."""
        count = min(self.max_states, len(self.times), max(2, MAX_BYTES // (4 * self._scale.numel())))
        positions = np.unique(np.linspace(0, len(self.times) - 1, count).round().astype(np.int64))
        states = torch.cat([self._states(part) for part in _chunks(positions)])
        # channel by channel, since the mean of what is known makes copies
        mean = torch.stack([states[:, c].nanmean(0, dtype=torch.float64) for c in range(states.shape[1])]).float()
        anomalies = states.sub_(mean).mul_(self._scale).flatten(1).nan_to_num_(0.0)
        variance, vectors = torch.linalg.eigh((anomalies @ anomalies.T).double())
        # A state set of rank r has r components; what lies below is rounding noise blown up by normalization.
        rank = int((variance > variance[-1] * 1e-6).sum())
        kept = slice(-min(self.num_components, rank), None)
        patterns = (vectors[:, kept] / variance[kept].sqrt()).float().T.flip(0) @ anomalies
        self._tensors = {"mean": mean, "patterns": patterns}
        scores = [self._project(self._states(part)) for part in _chunks(np.arange(len(self.times)))]
        return {"mean": mean, "patterns": patterns, "scores": torch.cat(scores)}

    def _fit_operator(self, lead_hours: float) -> Float[Tensor, "feature component"]:
        start, end = (torch.from_numpy(index) for index in self._pairs(lead_hours))
        if len(start) < MIN_PAIRS:
            raise DataError(
                f"ridge regression needs {MIN_PAIRS} pairs of training states {format_hours(lead_hours)} apart; "
                f"there are {len(start)}"
            )
        scores = self._tensors["scores"].double()
        tail_begins = int(len(start) * (1 - HELD_OUT_SHARE))
        tail = slice(tail_begins, None)
        # A pair whose later state lies inside the tail would give the tail away.
        head = self.times[end.numpy()] < self.times[start[tail_begins]]
        if head.sum() < MIN_PAIRS // 2:
            head = np.arange(len(start)) < tail_begins
        fits = _ridge_path(scores[start[head]], scores[end[head]], PENALTIES)
        errors = [float((_with_one(scores[start[tail]]) @ fit - scores[end[tail]]).square().sum()) for fit in fits]
        best = PENALTIES[int(np.argmin(errors))]
        return _ridge_path(scores[start], scores[end], (best,))[0].float()

    def _pairs(self, lead_hours: float) -> tuple[np.ndarray, np.ndarray]:
        later = np.searchsorted(self.times, self.times + lead_hours - 1e-3)
        inside = later < len(self.times)
        start, end = np.flatnonzero(inside), later[inside]
        exact = np.abs(self.times[end] - self.times[start] - lead_hours) < 1e-3
        return start[exact], end[exact]

    def _states(self, positions: np.ndarray) -> Float[Tensor, "time channel latitude longitude"]:
        return torch.as_tensor(self.read(positions)).float()

    def _project(self, states: Float[Tensor, "batch channel latitude longitude"]) -> Float[Tensor, "batch component"]:
        mean, patterns, scale = (t.to(states.device) for t in (self._tensors["mean"], self._patterns, self._scale))
        return ((states.float() - mean) * scale).flatten(1).nan_to_num(0.0) @ patterns.T

    def _reconstruct(
        self, scores: Float[Tensor, "batch component"]
    ) -> Float[Tensor, "batch channel latitude longitude"]:
        mean, patterns, scale = (t.to(scores.device) for t in (self._tensors["mean"], self._patterns, self._scale))
        return (scores @ patterns).unflatten(1, mean.shape) / scale + mean

    @property
    def _patterns(self) -> Float[Tensor, "component value"]:
        return self._tensors["patterns"]

    def _fingerprint(self) -> str:
        """Returns what the fit depends on; the scale stands for the statistics."""
        span = (len(self.times), self.times[0], self.times[-1]) if len(self.times) else (0,)
        scale = float(self._scale.double().sum())
        parts = (FORMAT, self.num_components, self.max_states, span, scale, self.schema.to_dict())
        return json.dumps(parts, default=float)

    def _read_cache(self) -> dict[str, Tensor] | None:
        if self.cache is None or not self.cache.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.cache, framework="pt") as file:
                if (file.metadata() or {}).get("fingerprint") != self._fingerprint():
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError:
            return None  # a damaged cache is worth nothing, and refitting costs little

    def _write_cache(self) -> None:
        if self.cache is None:
            return
        from safetensors.torch import save_file

        # Data may lie where only others may write, such as an installed package.
        with suppress(RunError), atomic_file(self.cache) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in self._tensors.items()}
            save_file(tensors, temporary, metadata={"fingerprint": self._fingerprint()})


def _chunks(positions: np.ndarray) -> list[np.ndarray]:
    return np.array_split(positions, max(1, -(-len(positions) // CHUNK)))


def _ridge_path(
    inputs: Float[Tensor, "pair component"], outputs: Float[Tensor, "pair component"], penalties: tuple[float, ...]
) -> list[Float[Tensor, "feature component"]]:
    """Returns ridge regressions for several penalties from one eigendecomposition, unpenalized intercepts last.

    Solves (X'X + penalty * mean(diag X'X)) W = X'Y for centered X and Y.
    """
    input_mean, output_mean = inputs.mean(0), outputs.mean(0)
    centered = inputs - input_mean
    values, vectors = torch.linalg.eigh(centered.T @ centered)
    rotated = vectors.T @ (centered.T @ (outputs - output_mean))
    slopes = [vectors @ (rotated / (values + penalty * values.mean())[:, None]) for penalty in penalties]
    return [torch.cat([slope, (output_mean - input_mean @ slope)[None]]) for slope in slopes]


def _with_one(scores: Float[Tensor, "pair component"]) -> Float[Tensor, "pair component+1"]:
    return torch.cat([scores, scores.new_ones(len(scores), 1)], dim=1)
