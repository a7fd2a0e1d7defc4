"""Reference models: trained beside a run's own to judge it by, on the same data.

``reference_models`` names them with the keys in which they differ from it, e.g.
``{coarse: {model: {ratios: [], budgets: []}}}``. Keys of a model of another kind stand alone, with that kind's
defaults, and it is trained by data parallelism alone, since it need not know how to be cut:
``{unet: {model: {kind: unet}, budget: equal}}``. :mod:`sciml.run.budgets` decides the steps that a budget allows.
With ``seeds`` above 1 each of them, and the run's own model, is trained again from the seeds that follow. They lie in
the run's folder under ``reference_models/NAME-NUMBER``, are runs themselves, and continue when the run is resumed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sciml.core.config import build
from sciml.core.errors import ConfigError, nearest
from sciml.core.sentences import plain
from sciml.core.types import Positive
from sciml.distributed.world import World
from sciml.run.folder import RunFolder
from sciml.run.session import TrainingSession, say
from sciml.run.spec import GROUPS, RunOptions, RunSpec, with_overrides

OWN = "model"
"""Name of the run's own model."""
BUDGET = ("budget", "at_most_s")
"""Keys of an entry that decide its steps; the others are groups of keys."""


@dataclass(frozen=True)
class ReferenceModel:
    """Describes a model that is trained beside a run's own.

    Attributes:
        number: of its seed, counted from the run's own, which is 0.
        spec: of the run that it is.
    """

    name: str
    number: int
    spec: RunSpec

    def folder_in(self, run: RunFolder) -> RunFolder:
        """Returns its folder within that of the run; it may not exist yet."""
        return _folder(run, self.name, self.number)


def build_reference_models(spec: RunSpec) -> list[ReferenceModel]:
    """Builds the reference models of a run, all of the first seed first; further seeds of its own model are among them.

    Raises:
        ConfigError: where one cannot work, as for the run's own configuration.
    """
    models = []
    for name, number in _names(spec.options):
        entry = spec.options.reference_models[name] if name != OWN else {}
        budget_of(name, entry)
        try:
            config = with_entry(spec.config, name, entry)
            config |= {"seed": spec.seed + number, "reference_models": {}, "seeds": 1}
            models.append(ReferenceModel(name, number, RunSpec.build(config)))
        except ConfigError as error:
            key = f"reference_models.{name}" + f".{error.key}" * (error.key is not None)
            raise ConfigError(error.message, key=key, hint=_hint_for(name, error.hint)) from None
    return models


def _hint_for(name: str, hint: str | None) -> str | None:
    """Returns a hint with its keys as they are typed for a reference model."""
    keys = rf"(?<![\w.])({'|'.join(GROUPS)})\."
    return None if hint is None else re.sub(keys, rf"reference_models.{name}.\1.", hint)


@dataclass(frozen=True)
class Budget:
    """Says what the training of a reference model may cost.

    Attributes:
        seconds: CPU (or device) seconds, or ``equal`` for as much as the run's own training costs.
        at_most_s: a limit to an equal budget, in seconds; None has none.
    """

    seconds: float | Literal["equal"]
    at_most_s: float | None = None

    def beside(self, own_s: float) -> float:
        """Returns the seconds that are allowed beside a run's own training of some seconds."""
        if self.seconds != "equal":
            return self.seconds
        return own_s if self.at_most_s is None else min(own_s, self.at_most_s)


def budget_of(name: str, entry: Mapping[str, Any]) -> Budget | None:
    """Returns the budget of a reference model, or None where it has as many steps as the run, or its own number.

    Args:
        entry: of ``reference_models``.

    Raises:
        ConfigError: where it is neither ``equal`` nor seconds.
    """
    budget, at_most = entry.get("budget"), entry.get("at_most_s")
    if at_most is not None and budget != "equal":
        raise ConfigError("is a limit to budget: equal", key=f"reference_models.{name}.at_most_s", hint="leave it out")
    at_most_s = None if at_most is None else _seconds(at_most, f"reference_models.{name}.at_most_s", "must be")
    if budget is None or budget == "equal":
        return None if budget is None else Budget("equal", at_most_s)
    return Budget(_seconds(budget, f"reference_models.{name}.budget", "must be equal, or"))


def _seconds(value: Any, key: str, must_be: str) -> float:
    try:
        if isinstance(value, str):  # a number in quotes is no number
            raise ConfigError("must be a number")
        return build(_Seconds, {"seconds": value}).seconds
    except ConfigError:
        raise ConfigError(f"{must_be} seconds above 0, got {plain(value, quoted=True)}", key=key) from None


def with_entry(config: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the configuration of a run that differs by an entry of ``reference_models``."""
    groups = {key: values for key, values in entry.items() if key not in BUDGET}
    for group, values in groups.items():
        if group not in GROUPS:
            raise ConfigError("unknown group of keys", key=group, hint=nearest(group, [*GROUPS, *BUDGET]))
        if not isinstance(values, Mapping):
            raise ConfigError(f"must be a group of keys, got {plain(values)}", key=group)
    if "budget_s" in groups.get("trainer", {}):
        raise ConfigError("is that of the run", key="trainer.budget_s", hint=f"use reference_models.{name}.budget")
    config = dict(config)
    model = groups.get("model", {})
    if model.get("kind", config["model"]["kind"]) != config["model"]["kind"]:
        # Neither keys nor weights nor cuts of one kind mean anything to another.
        config |= {"model": dict(groups.pop("model")), "init_from": None, "freeze": [], "lora_rank": 0, "parallel": {}}
    overrides = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    return with_overrides(config, {**overrides, "trainer.budget_s": None})


@dataclass(frozen=True)
class _Seconds:
    seconds: Positive[float]


def train_reference_models(models: Sequence[ReferenceModel], run: RunFolder, world: World) -> bool:
    """Trains those that are not trained yet; False where a signal ended it early."""
    for model in models:
        say(world, f"reference model {model.name}" + f", seed {model.spec.seed}" * (model.number > 0))
        folder = model.folder_in(run)
        if not TrainingSession.start(model.spec, world, folder if folder.exists else None, path=folder.path).fit():
            return False
    return True


def reference_runs(run: RunFolder, options: RunOptions) -> dict[str, list[RunFolder]]:
    """Returns the runs of the reference models by name; further seeds of the run's own model are left out."""
    runs: dict[str, list[RunFolder]] = {}
    for name, number in _names(options):
        folder = _folder(run, name, number)
        if name != OWN and folder.exists:
            runs.setdefault(name, []).append(folder)
    return runs


def _names(options: RunOptions) -> Iterator[tuple[str, int]]:
    """Yields the name and the number of the seed, without those of the run itself."""
    for number in range(options.seeds):
        yield from ((name, number) for name in (OWN, *options.reference_models) if (name, number) != (OWN, 0))


def _folder(run: RunFolder, name: str, number: int) -> RunFolder:
    return RunFolder(run.path / "reference_models" / f"{name}-{number}")
