"""Defines a domain for the rest of the suite: two protocols and the few records that pass between them.

A domain says what the data, the task and the pictures are. The trainer, the evaluation, the rollout and the
report know a domain only by what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.duration import format_hours
from sciml.data.source import SampleSource
from sciml.distributed.world import World
from sciml.domain.score import Baseline, Score
from sciml.parallel.config import ParallelConfig


@dataclass(frozen=True)
class Splits:
    """Holds train, validation and test samples, and what was fitted to the training part.

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
class FittedData:
    """Holds what a trained model was built from and normalized with.

    Attributes:
        calibration: factors of its spreads, by name; see :class:`Calibrates`.
        data: keys under ``data`` that it was trained with; None where that is the run's own training.
    """

    schema: Any
    statistics: Any
    calibration: Mapping[str, float] = field(default_factory=dict)
    data: Any = None


DataKeys = TypeVar("DataKeys", covariant=True)
TaskKeys = TypeVar("TaskKeys", covariant=True)
ModelKeys = TypeVar("ModelKeys", covariant=True)


class Named(Protocol):
    """Describes anything that has a name, such as the engine of a run."""

    @property
    def name(self) -> str: ...


class DomainSpec(Protocol[DataKeys, TaskKeys, ModelKeys]):
    """Says what a domain may read of the specification of a run, typed by the domain's own dataclasses.

    Attributes:
        data, task: the keys under ``data`` and ``task``, of the domain's types ``data_config`` and ``task_config``.
        model: the keys under ``model``, of the type that ``model_kinds`` has for its kind.
        parallel: how the model is sharded.
        engine: which engine trains it.
        seed: of everything that is drawn.
        config: all keys as plain values, to see which were left out.
    """

    @property
    def data(self) -> DataKeys: ...

    @property
    def task(self) -> TaskKeys: ...

    @property
    def model(self) -> ModelKeys: ...

    @property
    def parallel(self) -> ParallelConfig: ...

    @property
    def engine(self) -> Named: ...

    @property
    def seed(self) -> int: ...

    @property
    def config(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class LoadedModel:
    """Holds a trained model, opened without any data.

    Attributes:
        directory: the folder for its results: of its run, or another one where that is only read.
        spec: the specification of its run.
        fitted: what it was built from and normalized with.
        model: in evaluation mode.
        device: where it is.
        world: the processes that have it, each whole, and may share large cases; None: this one alone.
    """

    directory: Path
    spec: DomainSpec[Any, Any, Any]
    fitted: FittedData
    model: nn.Module
    device: torch.device
    world: World | None = None


@dataclass(frozen=True)
class LossOutput:
    """Holds a loss over some samples.

    Attributes:
        loss: scalar mean over the weight.
        parts: named scalars for the log, detached.
        weight: how much was averaged over (samples, atoms, ...), for exact means over micro-batches and ranks.
    """

    loss: Float[Tensor, ""]
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class Prediction:
    """Holds what a model or a baseline predicts for a batch, in physical units and float32.

    Attributes:
        values: named tensors, e.g. ``{"fields": (batch, channel, latitude, longitude)}``.
    """

    values: Mapping[str, Tensor]


class MetricSet(Protocol):
    """Accumulates scores over batches; sums inside, so that ranks can be added."""

    def update(self, prediction: Prediction, batch: Any) -> None: ...

    def sums(self) -> list[Tensor]:
        """Returns the accumulators, in a fixed order; the caller adds them over ranks in place."""
        ...

    def compute(self) -> list[Score]:
        """Returns the scores; those of the metric for headlines and skills come first."""
        ...


Predictor = Callable[[Any], Prediction]
"""A baseline: from a batch alone to a prediction of its next target."""


class Task(Protocol):
    """Says what is learned and how it is judged. Holds schema and statistics, no parameters.

    Attributes:
        needs_double_backward: whether the loss is made of gradients, as that of forces is.
    """

    needs_double_backward: bool

    def loss(self, model: nn.Module, batch: Any) -> LossOutput: ...

    def predict(self, model: nn.Module, batch: Any) -> Prediction:
        """Applies the model once: the batch's next target."""
        ...

    def advance(self, batch: Any, prediction: Prediction) -> Any | None:
        """Returns the batch one step later, standing on the prediction; None where nothing follows."""
        ...

    def metrics(self) -> MetricSet: ...

    def baselines(self) -> Mapping[Baseline, Predictor]: ...

    def to(self, device: Any) -> Task: ...


@dataclass(frozen=True)
class NamedFigure:
    """Describes a picture of a report.

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
    """Holds all that figures and reports may look at: what a run has left behind.

    Attributes:
        directory: the run's folder.
        record: what ``run.json`` says: domain, samples of each split, resolved configuration, provenance.
        schema: what ``schema.json`` says.
        scores: rows of ``scores.json``.
        history: rows of ``metrics.jsonl``.
        example: what ``Domain.example`` gave for a test case.
        baselines: of the domain, in the order of tables and legends.
        headline_lead_h: lead time that headlines speak of where it was scored; None takes the longest.
        time_text: writes a lead time of some hours.
        costs: by predictor, what ``costs.json`` says: ``step_s``, and ``training_s`` where it was trained.
    """

    directory: Path
    record: Mapping[str, Any]
    schema: Mapping[str, Any]
    scores: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    example: Mapping[str, np.ndarray]
    baselines: Sequence[Baseline] = ()
    headline_lead_h: float | None = None
    time_text: Callable[[float], str] = format_hours
    costs: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@runtime_checkable
class Domain(Protocol):
    """Describes a domain of science: one folder under ``domains``, one option of the Hydra group ``domain``.

    Attributes:
        name: folder and Hydra option.
        model_kinds: kinds of model that fit, and the dataclass of each one's keys under ``model``, e.g.
            ``{"vit": ViTConfig}``.
        data_config, task_config: dataclasses of the keys under ``data`` and ``task``.
        baselines: that its tasks may compare with, and reference models of its configurations, in the order in which
            tables and legends show them.
    """

    name: str
    model_kinds: Mapping[str, type]
    data_config: type
    task_config: type
    baselines: Sequence[Baseline]

    def check(self, spec: DomainSpec[Any, Any, Any]) -> None:
        """Refuses what cannot work; touches no data and no device."""
        ...

    def splits(self, spec: DomainSpec[Any, Any, Any], fitted: FittedData | None = None) -> Splits:
        """Opens the data; for a trained model, laid out as the model knows them and normalized as it was trained.

        Args:
            fitted: of a trained model; the data are then laid out as it knows them and normalized as it was trained.
        """
        ...

    def model(self, spec: DomainSpec[Any, Any, Any], schema: Any) -> nn.Module:
        """Builds a model for one device; safe under ``torch.device("meta")``."""
        ...

    def task(self, spec: DomainSpec[Any, Any, Any], splits: Splits) -> Task: ...

    def restore(self, schema: Mapping[str, Any], statistics: Mapping[str, Tensor]) -> FittedData:
        """Restores schema and statistics of a trained model from what their ``to_dict`` and ``to_tensors`` gave."""
        ...

    def example(self, task: Task, model: nn.Module, splits: Splits) -> dict[str, np.ndarray]:
        """Returns what the figures show of the model on one test case; kept in the run's folder."""
        ...

    def figures(self, result: RunResult) -> Iterator[NamedFigure]: ...
