"""Defines what the climate model learns, the standardized increment over an interval, and how its forecasts are
judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from domains.climate.data.batch import FieldBatch
from domains.climate.data.boundary import boundary_frame, score_weights
from domains.climate.data.calendar import WORLD, Calendar
from domains.climate.data.forcings import FORCINGS, chosen, forcing_fields
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.forecast.extremes import Thresholds
from domains.climate.forecast.metrics import ClimateMetrics, FieldsAt
from domains.climate.model.climax import Predicts
from domains.climate.model.diagnostics import DiagnosticOutputs
from domains.climate.model.horizon import HorizonConfig
from domains.climate.model.loss import ForecastLoss, LossConfig
from sciml.core.config import one_of
from sciml.core.types import AtLeastOne, NonNegative
from sciml.domain.optional import AUTO
from sciml.domain.protocol import LossOutput, Prediction, Predictor
from sciml.domain.score import Baseline
from sciml.forecast.ensemble import PERTURBATION
from sciml.forecast.members import drawn_noise
from sciml.nn.recompute import recompute


@dataclass(frozen=True)
class ClimateTaskConfig(LossConfig, HorizonConfig):
    """Says what is forecast.

    Attributes:
        intervals: hours of one model step; one of them is drawn for each training sample. ``[72h]`` is a direct
            forecast, ``[6h..168h]`` one of continuous lead time (as far as the data are long enough),
            ``[6h, 12h, 24h]`` one to be iterated.
        score_lead_times: lead times at which forecasts are scored; each must be reached by equal intervals. ``[auto]``
            takes those nearest to each of five days.
        boundary_rows: rows and columns at the edges of a region at which the weather is given; at most an eighth of it.
        forcings: computed inputs, see ``domains.climate.data.forcings``; ``[auto]`` takes the sun's radiation, but for
            simulations without a day.
        members: perturbed starts that a scored forecast is the mean of; 1 is no ensemble.
        perturbation: size of their perturbations, in standard deviations of each channel; by default 0.05, and none
            where the members differ by noise.
    """

    practical: ClassVar[tuple[str, ...]] = ("score_lead_times", "members", "perturbation")

    intervals: list[str] = field(default_factory=lambda: ["72h"])
    score_lead_times: list[str] = field(default_factory=lambda: ["72h"])
    forcings: list[str] = field(default_factory=lambda: [AUTO])
    boundary_rows: AtLeastOne = 4
    members: AtLeastOne = 1
    perturbation: NonNegative[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.forcings:
            if self.forcings != [AUTO]:
                one_of(name, FORCINGS, "task.forcings")

    @property
    def perturbation_size(self) -> float:
        """Returns the size of perturbed starts that is meant where none is given."""
        usual = 0.0 if self.is_random else PERTURBATION
        return usual if self.perturbation is None else self.perturbation


class ClimateTask:
    """Forecasts by normalized increments.

    The state is standardized with the training period's mean and standard deviation; the model predicts the
    increment over the next interval in units of the increments' standard deviation for that interval. A model
    that predicts zero is therefore persistence, and the loss weighs all channels and intervals alike.
    Normalization and the sum stay float32, whatever the precision of the forward pass.

    A model may predict the standardized state itself instead; its increment is then what that state differs by.

    Diagnostic outputs are not read; see :mod:`domains.climate.model.diagnostics` for what is learned of them.

    Args:
        score_lead_times: hours at which metrics are taken.
        predicts: what a model's output is: ``increment`` or ``state``.
        boundary_rows: width of the frame in which a region's weather is given.
        loss: how forecasts are judged in training, and whether the model is given noise.
        horizon: over how many steps it is trained; None takes all that batches have.
        seed: of what is drawn of the horizon.
        climatology: mean fields by valid time, for the anomaly correlation.
        baselines: what forecasts are compared with.
        thresholds: of extremes, made when they are first needed.
    """

    needs_double_backward = False
    members = 1

    def __init__(
        self,
        schema: ClimateSchema,
        statistics: ClimateStatistics,
        *,
        score_lead_times: Sequence[float],
        forcings: Sequence[str] = (),
        predicts: Predicts = "increment",
        boundary_rows: int = 4,
        loss: LossConfig | None = None,
        horizon: HorizonConfig | None = None,
        seed: int = 0,
        climatology: FieldsAt | None = None,
        baselines: Callable[[], Mapping[Baseline, Predictor]] = dict,
        thresholds: Callable[[], Thresholds] = dict,
    ) -> None:
        self.schema, self.statistics = schema, statistics
        self.score_lead_times = tuple(score_lead_times)
        self.forcings, self.predicts = chosen(forcings), predicts
        self.loss_config = loss or LossConfig()
        self.horizon, self.horizon_seed = horizon, seed
        self.span = None if horizon is None else horizon.whole
        self.climatology = climatology
        has_outputs = len(schema.inputs) < len(schema.channels)
        self.has_gaps = has_outputs or bool(schema.gaps)
        self._frame = boundary_frame(schema, boundary_rows)
        self._make_baselines = baselines
        self._make_thresholds = thresholds
        self._thresholds: Thresholds | None = None
        self._baselines: Mapping[Baseline, Predictor] | None = None
        self.to("cpu")

    def to(self, device: torch.device | str) -> ClimateTask:
        self.device = device
        weights = score_weights(self.schema, self._frame)
        self.area = torch.as_tensor(weights, dtype=torch.float32, device=device)
        self.frame = None if self._frame is None else torch.as_tensor(self._frame, device=device)
        on_device = {name: value.to(device) for name, value in self.statistics.to_tensors().items()}
        self.statistics = dataclasses.replace(self.statistics, **on_device)
        self.diagnostics = DiagnosticOutputs(self.schema, self.statistics)
        self.judge = ForecastLoss(self.loss_config, self.schema, self.area)
        return self

    def at_step(self, step: int | None, max_steps: int) -> None:
        """Learns the mean or members, over as many steps as the horizon says at a step of the training; None stands for
        outside of it.
        """
        self.judge.learns_mean = step is not None and step < self.loss_config.mean_first * max_steps
        if self.horizon is not None:
            span = self.horizon.whole if step is None else self.horizon.span(step, max_steps, self.horizon_seed)
            self.span = span

    @property
    def has_spread(self) -> bool:
        """Returns whether forecasts are ensembles whose members differ by noise, and have a spread that was learned."""
        return self.loss_config.is_random and self.members > 1

    @property
    def phase(self) -> int:
        """Returns how many members of each sample are learned now."""
        return self.judge.members

    def loss(self, model: nn.Module, batch: FieldBatch) -> LossOutput:
        """Returns the loss of normalized increments, averaged over the steps that are learned."""
        if batch.targets is None:
            raise ValueError("a batch without targets has no loss")
        losses = []
        start = batch.as_members(self.judge.members) if self.judge.members > 1 else batch
        step: FieldBatch | None = self._before_learning(model, start)
        mode = "full" if step is not None and step.intervals.shape[1] > 1 else "none"
        while step is not None and step.targets is not None:
            scale = self._scale(step)
            increment = recompute(mode, partial(self._increment_from, model, step), step.state)
            truth = (step.targets[:, 0] - step.state) / scale
            if self.diagnostics.any:
                truth = torch.where(self.diagnostics.which, self.diagnostics.standardize(step.targets[:, 0]), truth)
            losses.append(self.judge(increment - truth, truth.isfinite() if self.has_gaps else None))
            step = step.advance(self._following(increment, step))
        loss = torch.stack(losses).mean()
        parts = {f"loss_step_{n + 1}": value.detach() for n, value in enumerate(losses)} if len(losses) > 1 else {}
        return LossOutput(loss, parts, weight=float(batch.num_samples))

    @torch.no_grad()
    def _before_learning(self, model: nn.Module, batch: FieldBatch) -> FieldBatch | None:
        """Returns the batch behind the steps that are only taken, with as many ahead as are learned."""
        if self.span is None:
            return batch
        step: FieldBatch | None = batch.first_steps(sum(self.span))
        for _ in range(self.span.pushforward):
            assert step is not None
            step = step.advance(self._following(self.increment(model, step), step))
        return step

    def _increment_from(
        self, model: nn.Module, batch: FieldBatch, state: Float[Tensor, "batch channel latitude longitude"]
    ) -> Float[Tensor, "batch channel latitude longitude"]:
        return self.increment(model, dataclasses.replace(batch, state=state))

    def predict(self, model: nn.Module, batch: FieldBatch) -> Prediction:
        return Prediction({"fields": self._following(self.increment(model, batch), batch)})

    def advance(self, batch: FieldBatch, prediction: Prediction) -> FieldBatch | None:
        return batch.advance(prediction.values["fields"])

    def _following(
        self, increment: Float[Tensor, "batch channel latitude longitude"], batch: FieldBatch
    ) -> Float[Tensor, "batch channel latitude longitude"]:
        """Returns the fields at the end of the step."""
        fields = batch.state + increment * self._scale(batch)
        if self.diagnostics.any:
            fields = torch.where(self.diagnostics.which, self.diagnostics.restore(increment), fields)
        return self._with_edges(fields, batch)

    def increment(self, model: nn.Module, batch: FieldBatch) -> Float[Tensor, "batch channel latitude longitude"]:
        """Returns the increment over the next interval, in standard deviations of such increments.

        Of diagnostic outputs it is what is learned of them.
        """
        mean, std = self.statistics.mean[:, None, None], self.statistics.std[:, None, None]
        state = (batch.state - mean) / std
        names, options = self.schema.channels, dict[str, Any]()
        given = state
        if self.diagnostics.any:
            names, options["output_names"] = self.schema.inputs, self.schema.channels
            given = state[:, ~self.diagnostics.which.flatten()]
        if self.has_gaps:
            given = given.nan_to_num(0.0)  # the mean, where nothing is known
        grid = {"latitude": self.schema.latitude, "longitude": self.schema.longitude}
        interval = batch.intervals[:, 0]
        time = self._world_time(batch.time)
        if self.loss_config.is_random:
            options["noise"] = self._noise(batch)
        output = model(given, names, interval, time, self._constants(batch), **grid, **options).float()
        if self.predicts == "increment":
            return output
        increment = (output - state) * std / self._scale(batch)
        return torch.where(self.diagnostics.which, output, increment) if self.diagnostics.any else increment

    def _noise(self, batch: FieldBatch) -> Float[Tensor, "batch noise"] | None:
        """Returns what makes each sample a member of its own; None for the model without noise.

        It grows with the square root of the interval, as errors do that add up at random.
        """
        if batch.noise is None:
            return None
        if self.judge.learns_mean:  # zeros, so that each parameter has a gradient in every step
            return batch.state.new_zeros(batch.num_samples, self.loss_config.noise_length)
        days = batch.intervals[:, :1].to(batch.state) / 24
        return drawn_noise(batch.noise, batch.steps_taken, self.loss_config.noise_length).to(days) * days.sqrt()

    def metrics(self) -> ClimateMetrics:
        if self._thresholds is None:
            self._thresholds = self._make_thresholds()
        return ClimateMetrics(
            self.schema, self.score_lead_times, self.climatology, self.device, self._frame, self.members,
            self._thresholds, self.statistics.std, self.has_spread,
        )  # fmt: skip

    def baselines(self) -> Mapping[Baseline, Predictor]:
        if self._baselines is None:
            self._baselines = self._make_baselines()
        return self._baselines

    def _scale(self, batch: FieldBatch) -> Float[Tensor, "batch channel 1 1"]:
        return self.statistics.increment_std_at(batch.intervals[:, 0])[:, :, None, None].float()

    def _constants(self, batch: FieldBatch) -> Float[Tensor, "batch constant latitude longitude"] | None:
        constants = [self.statistics.statics.expand(batch.num_samples, -1, -1, -1)]
        grid = self.schema.latitude, self.schema.longitude
        time, valid_time = self._world_time(batch.time), self._world_time(batch.valid_time)
        constants += [forcing_fields(name, time, valid_time, *grid) for name in self.forcings]
        if self.frame is not None:
            edges = (self._edges(batch) - self.statistics.mean[:, None, None]) / self.statistics.std[:, None, None]
            read = edges[:, ~self.diagnostics.which.flatten()]
            constants.append(torch.where(self.frame, read.nan_to_num(0.0), 0.0))
        together = torch.cat(constants, dim=1) if len(constants) > 1 else constants[0]
        return together if together.shape[1] else None

    def _edges(self, batch: FieldBatch) -> Float[Tensor, "batch channel latitude longitude"]:
        """Returns fields of which the region's edges are those at the end of the step; else what stands there now."""
        if batch.targets is not None:
            return batch.targets[:, 0]
        given = None if batch.surroundings is None else batch.surroundings(batch.valid_time)
        return batch.state if given is None else given.to(batch.state)

    def _with_edges(
        self, fields: Float[Tensor, "batch channel latitude longitude"], batch: FieldBatch
    ) -> Float[Tensor, "batch channel latitude longitude"]:
        """Returns fields with the edges of a region that are given."""
        if self.frame is None:
            return fields
        edges = self._edges(batch).to(fields)
        return torch.where(self.frame & (edges.isfinite() | ~self.diagnostics.which), edges, fields)

    def _world_time(self, hours: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Returns hours since 1970 of the world's calendar, which the sun follows, of hours in that of the data."""
        calendar = Calendar(self.schema.calendar)
        if calendar == WORLD:
            return hours
        return torch.from_numpy(calendar.standard_hours(hours.detach().cpu().double().numpy())).to(hours)
