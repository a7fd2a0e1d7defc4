"""Defines what only some domains and tasks have, each a protocol of its own, and the records that pass between."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from sciml.core.result import CommandResult
from sciml.domain.protocol import DomainSpec, FittedData, LoadedModel, Prediction, SampleSource, Splits, Task


class Calibrator(Protocol):
    """Describes what is added up over predictions to find how their spreads are made right."""

    def sums(self) -> list[Tensor]:
        """Returns the accumulators in a fixed order; adding them over ranks in place is all there is to do."""
        ...

    def update(self, prediction: Prediction, batch: Any) -> None: ...

    def factors(self) -> dict[str, float]:
        """Returns the factors that would have made the spreads right."""
        ...


@runtime_checkable
class Calibrates(Task, Protocol):
    """Describes tasks whose predictions may come with a spread.

    Attributes:
        has_spread: whether they do.
        calibration: by name of a value, the factor that turns the model's own spread into the standard deviation that
            is reported; one where a name is missing.
        calibration_samples: how many are enough to find factors; None takes all.
    """

    has_spread: bool
    calibration: Mapping[str, float]
    calibration_samples: int | None

    def calibrator(self) -> Calibrator:
        """Returns what finds factors from predictions with factors of one."""
        ...

    def calibration_source(self, splits: Splits) -> SampleSource:
        """Returns the samples of the validation split that factors are found on."""
        ...


@runtime_checkable
class FollowsTraining(Task, Protocol):
    """Describes tasks that learn something else early in a training than late.

    Attributes:
        phase: names what is learned now; in one phase, batches of the same shapes pass through a model in the same
            shapes.
    """

    @property
    def phase(self) -> Hashable: ...

    def at_step(self, step: int | None, max_steps: int) -> None:
        """Is called before each step of the training; with None before the model is validated."""
        ...


AUTO = "auto"
"""Leaves a key to the data, see :class:`FollowsData`."""


@dataclass(frozen=True)
class DataDefaults:
    """Holds what a configuration leaves to the data.

    Attributes:
        values: by dotted key, e.g. ``{"data.augment": "none"}``; empty where nothing was left open.
        sentence: says in one line what was chosen, and why.
    """

    values: Mapping[str, Any]
    sentence: str = ""


@runtime_checkable
class PlansWithoutData(Protocol):
    """Describes domains that know the shape of their samples without reading all: from keys, or headers of files; or of
    which a plan needs less than a training.
    """

    def planned_defaults(self, spec: DomainSpec[Any, Any, Any]) -> DataDefaults:
        """Returns the keys that the specification leaves to the data, see :class:`FollowsData`."""
        ...

    def planned_splits(self, spec: DomainSpec[Any, Any, Any]) -> Splits:
        """Returns samples of the shape of a run's; their tensors may be on the meta device, and statistics are none."""
        ...


@runtime_checkable
class FollowsData(Protocol):
    """Describes domains in which some keys are best decided by the data that a run begins with."""

    def data_defaults(
        self, spec: DomainSpec[Any, Any, Any], source: DomainSpec[Any, Any, Any] | None = None
    ) -> DataDefaults:
        """Opens the data and returns the keys that the specification leaves to them.

        Args:
            source: of the run whose weights the training starts from; they fit only a model that is told the same.
        """
        ...


@runtime_checkable
class WarmStarts(Protocol):
    """Describes domains whose weights mean something only in the units that they were trained in."""

    def warm_start(self, new: FittedData, older: FittedData) -> FittedData:
        """Returns what a model is built from and normalized with that is trained on new data from an older
        one's weights.
        """
        ...


@runtime_checkable
class InPython(Protocol):
    """Describes domains whose trained models do more in Python than forecasting and being scored.

    ``trained_model`` is the class of such a model, a subclass of ``sciml.run.trained_model.TrainedModel``.
    """

    trained_model: type


@runtime_checkable
class JudgesByCost(Protocol):
    """Describes domains whose reports show error against cost, that of solvers among the baselines.

    Attributes:
        cost_rounds: how often a step of each predictor is measured, in turn, when a run is scored.
    """

    cost_rounds: int


@runtime_checkable
class SuggestsArguments(Protocol):
    """Describes domains whose verbs need more than a run, and which know what a user could type first."""

    def suggested_arguments(self, verb: str, fitted: FittedData) -> tuple[str, ...]:
        """Returns what to type beside ``run=``, e.g. ``elements=CoCrFeNi``.

        Args:
            fitted: what the run's model was built from.
        """
        ...


@runtime_checkable
class Predicts(Protocol):
    """Describes domains whose models predict cases in a user's file.

    ``predict_config`` is its dataclass of keys.
    """

    predict_config: type

    def predict(self, loaded: LoadedModel, config: Any) -> CommandResult: ...


@runtime_checkable
class Screens(Protocol):
    """Describes domains that search a space of candidates. ``screen_config`` is its dataclass of keys."""

    screen_config: type

    def screen(self, loaded: LoadedModel, config: Any) -> CommandResult: ...


@runtime_checkable
class SamplesThermodynamics(Protocol):
    """Describes domains that sample states at given temperatures; ``thermodynamics_config`` is their keys."""

    thermodynamics_config: type

    def thermodynamics(self, loaded: LoadedModel, config: Any) -> CommandResult: ...


@dataclass(frozen=True)
class ImportedModel:
    """Holds a model that was trained elsewhere, in a domain's terms.

    Attributes:
        model: keys of the group ``model``, as a run's configuration has them.
        fitted: what the model is built from and normalized with.
        weights: its parameters by name.
    """

    model: Mapping[str, Any]
    fitted: FittedData
    weights: Mapping[str, Tensor]


@runtime_checkable
class Imports(Protocol):
    """Describes domains that read models trained elsewhere. ``import_config`` is its dataclass of keys."""

    import_config: type

    def import_model(self, config: Any) -> ImportedModel:
        """Reads the model, all of it, before anything is written."""
        ...


@runtime_checkable
class ExportsToPrograms(Protocol):
    """Describes domains whose models other programs can use.

    Attributes:
        programs: by name of a program, what writes its files into the folder of an exported model, as of the data set
            that is named; None leaves the choice to it.
    """

    programs: Mapping[str, Callable[[Path, str | None], None]]


@runtime_checkable
class Prepares(Protocol):
    """Describes domains that turn data as they come into a store. ``prepare_config`` is its dataclass of keys."""

    prepare_config: type

    def prepare(self, config: Any) -> Path:
        """Makes the store and returns its path."""
        ...


@runtime_checkable
class Simulates(Protocol):
    """Describes domains that make data of their own. ``simulate_config`` is its dataclass of keys."""

    simulate_config: type

    def simulate(self, config: Any) -> Path:
        """Makes the data and returns their path."""
        ...
