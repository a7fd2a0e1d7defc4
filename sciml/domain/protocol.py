"""What a domain is to the rest of the suite: two protocols and the few records that pass between them.

A domain says what the data, the task and the pictures are. The trainer, the evaluation, the rollout and the
report know a domain only by what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from sciml.data.source import SampleSource


@dataclass(frozen=True)
class Splits:
    """Train, validation and test samples, and what was learned from the training part.

    Attributes:
        schema: what the model is built from (channels, grid, elements, ...); JSON-able through ``to_dict``.
        statistics: what normalization is built from; computed on the training part alone.
    """

    train: SampleSource
    valid: SampleSource
    test: SampleSource
    schema: Any
    statistics: Any


@dataclass(frozen=True)
class Trained:
    """What a trained model was built from and normalized with.

    Attributes:
        calibration: factors of its spreads, by name; see :class:`Calibrates`.
    """

    schema: Any
    statistics: Any
    calibration: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, opened without any data.

    Attributes:
        directory: the folder of its run.
        cfg: the whole checked configuration that it was trained with.
        trained: what it was built from and normalized with.
        model: in evaluation mode.
        device: where it is.
    """

    directory: Path
    cfg: Any
    trained: Trained
    model: nn.Module
    device: torch.device


@dataclass(frozen=True)
class LossOutput:
    """A loss over some samples.

    Attributes:
        loss: scalar mean over the weight.
        parts: named scalars for the log, detached.
        weight: how much was averaged over (samples, atoms, ...), for exact means over micro-batches and ranks.
    """

    loss: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class Prediction:
    """What a model or a baseline says of a batch, in physical units and float32.

    Attributes:
        values: named tensors, e.g. ``{"fields": (batch, channel, latitude, longitude)}``.
    """

    values: Mapping[str, Tensor]


@dataclass(frozen=True)
class Score:
    """One line of ``scores.json``, for one predictor."""

    variable: str
    metric: str
    value: float
    unit: str
    lead_time_h: float | None = None

    @property
    def key(self) -> tuple[str, str, float | None]:
        """What makes two scores of different predictors comparable."""
        return (self.variable, self.metric, self.lead_time_h)


class MetricSet(Protocol):
    """Scores accumulated over batches; sums inside, so that ranks can be added."""

    def update(self, prediction: Prediction, batch: Any) -> None: ...

    def sums(self) -> list[Tensor]:
        """The accumulators, in a fixed order; the caller adds them over ranks in place."""
        ...

    def compute(self) -> list[Score]: ...


Predictor = Callable[[Any], Prediction]
"""A baseline: from a batch alone to a prediction of its next target."""


class Task(Protocol):
    """What is learned and how it is judged. Holds schema and statistics, no parameters.

    Attributes:
        primary_metric: the score (lower is better) that headlines and skills are made of, e.g. ``rmse``.
        differentiates_twice: whether the loss is made of gradients, as that of forces is.
    """

    primary_metric: str
    differentiates_twice: bool

    def loss(self, model: nn.Module, batch: Any) -> LossOutput: ...

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        """One application of the model: the batch's next target."""
        ...

    def advance(self, batch: Any, prediction: Prediction) -> Any | None:
        """The batch one step later, standing on the prediction; None where nothing follows."""
        ...

    def metrics(self) -> MetricSet: ...

    def baselines(self) -> Mapping[str, Predictor]: ...

    def to(self, device: Any) -> Task: ...


@runtime_checkable
class Calibrates(Task, Protocol):
    """What a task adds whose predictions come with a spread.

    Attributes:
        calibration: by name of a value, the factor that turns the model's own spread into the standard deviation that
            is reported; one where a name is missing.
    """

    calibration: Mapping[str, float]

    def spread_factors(self, scores: Sequence[Score]) -> dict[str, float]:
        """The factors that would have made the spreads right, from scores of predictions with factors of one."""
        ...


@dataclass(frozen=True)
class NamedFigure:
    """A picture of a report.

    Attributes:
        name: file stem, e.g. ``skill_by_lead_time``.
        title: heading in the report.
        caption: one or two sentences that say what is seen.
        render: writes the picture next to the given stem and returns the written path (.png, .gif, .svg).
    """

    name: str
    title: str
    caption: str
    render: Callable[[Path], Path]


@dataclass(frozen=True)
class RunResult:
    """All that figures and reports may look at: what a run has left behind.

    Attributes:
        directory: the run's folder.
        record: what ``run.json`` says: domain, samples of each split, resolved configuration, provenance.
        schema: what ``schema.json`` says.
        scores: rows of ``scores.json``.
        history: rows of ``metrics.jsonl``.
        example: what ``Domain.example`` gave for a test case.
    """

    directory: Path
    record: Mapping[str, Any]
    schema: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    example: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ForecastRequest:
    """What forecast a user asks for.

    Attributes:
        init_time: as the domain writes times, e.g. ``2001-12-01T00``; None takes the first of the test period.
        lead_hours: how far ahead.
        every_hours: interval of one model step; None takes the longest known one that fits.
        members: ensemble size of perturbed starts.
        perturbation: their size in standard deviations.
        combine_intervals: one more kind of ensemble: a member for each known interval that fits.
    """

    init_time: str | None
    lead_hours: float
    every_hours: float | None = None
    members: int = 1
    perturbation: float = 0.0
    combine_intervals: bool = False
    seed: int = 0


class Writer(Protocol):
    """A forecast file that grows with each lead time."""

    def append(self, lead_hours: float, prediction: Prediction) -> None:
        """Adds one lead time; samples of the prediction are members of the ensemble."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Domain(Protocol):
    """A domain of science: one folder under ``domains``, one option of the Hydra group ``domain``.

    In what follows ``cfg`` is the whole checked configuration (``cfg.data``, ``cfg.task``, ``cfg.model``, ...),
    ``cfg.data`` of type ``data_config`` and ``cfg.task`` of type ``task_config``.

    Attributes:
        name: folder and Hydra option.
        model_kinds: kinds of model that fit, and the dataclass of each one's keys under ``model``, e.g.
            ``{"vit": ViTConfig}``.
        data_config, task_config: dataclasses of the keys under ``data`` and ``task``.
    """

    name: str
    model_kinds: Mapping[str, type]
    data_config: type
    task_config: type

    def check(self, cfg: Any) -> None:
        """Refuses what cannot work; touches no data and no device."""
        ...

    def splits(self, cfg: Any, trained: Trained | None = None) -> Splits:
        """The data; for a trained model, laid out as the model knows them and normalized as it was trained."""
        ...

    def model(self, cfg: Any, schema: Any) -> nn.Module:
        """A model for one device; safe under ``torch.device("meta")``."""
        ...

    def task(self, cfg: Any, splits: Splits) -> Task: ...

    def restore(self, schema: Mapping[str, Any], statistics: Mapping[str, Tensor]) -> Trained:
        """Schema and statistics of a trained model, from what their ``to_dict`` and ``to_tensors`` gave."""
        ...

    def example(self, task: Task, model: nn.Module, splits: Splits) -> dict[str, np.ndarray]:
        """What the figures want to show of the model on one test case; kept in the run's folder."""
        ...

    def figures(self, result: RunResult) -> Iterator[NamedFigure]: ...


@runtime_checkable
class Continues(Protocol):
    """What a domain adds whose weights mean something in the units alone that they were trained in."""

    def continued(self, new: Trained, older: Trained) -> Trained:
        """What a model is built from and normalized with that is trained on new data from an older one's weights."""
        ...


@runtime_checkable
class Forecasts(Protocol):
    """What a domain adds where there is time to forecast in.

    Attributes:
        forecast_endings: of the files that its writer writes, the usual one first.
    """

    forecast_endings: Sequence[str]

    def forecast_batches(self, cfg: Any, splits: Splits, request: ForecastRequest) -> list[Any]:
        """Batches to roll out, one for each path of model steps to the lead time; members are samples."""
        ...

    def forecast_writer(self, path: Path, splits: Splits, batches: Sequence[Any]) -> Writer: ...

    def forecast_figures(self, path: Path, splits: Splits) -> Iterator[NamedFigure]:
        """Pictures of a written forecast, beside the truth where the data hold it."""
        ...


@dataclass(frozen=True)
class Made:
    """What a use of a trained model has made: a document for programs, lines for people."""

    document: Mapping[str, Any]
    lines: Sequence[str]


@runtime_checkable
class Predicts(Protocol):
    """What a domain adds whose models say something of cases in a user's file.

    ``predict_config`` is its dataclass of keys.
    """

    predict_config: type

    def predict(self, opened: TrainedModel, config: Any) -> Made: ...


@runtime_checkable
class Screens(Protocol):
    """What a domain adds that searches a space of candidates. ``screen_config`` is its dataclass of keys."""

    screen_config: type

    def screen(self, opened: TrainedModel, config: Any) -> Made: ...


@runtime_checkable
class Prepares(Protocol):
    """What a domain adds that turns data as they come into a store. ``prepare_config`` is its dataclass of keys."""

    prepare_config: type

    def prepare(self, config: Any) -> Path:
        """Makes the store and returns its path."""
        ...


@runtime_checkable
class Simulates(Protocol):
    """What a domain adds that makes data of its own. ``simulate_config`` is its dataclass of keys."""

    simulate_config: type

    def simulate(self, config: Any) -> Path:
        """Makes the data and returns their path."""
        ...
