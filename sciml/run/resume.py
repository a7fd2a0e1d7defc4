"""Decides what a resumed run trains with: its own configuration, with what was typed applied or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sciml.core.config import flat
from sciml.core.errors import ConfigError
from sciml.core.sentences import plain
from sciml.domain.loading import load_domain
from sciml.domain.optional import AUTO
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder
from sciml.run.reference_models import with_entry
from sciml.run.spec import with_overrides, with_recorded_paths

KEPT = ("domain", "data", "task", "model", "seed", "lora_rank")
"""Groups and keys that make a run what it is: its weights and order of samples mean nothing with another one."""
CHOSEN = ("trainer", "optim", "parallel", "engine", "tracking", "reference_models", "seeds")
"""Groups and keys that may be chosen anew whenever a run resumes."""
TYPED = ("freeze",)
"""Keys that may be chosen anew, and that no experiment chooses."""
OLDER = {"lora_rank": 0}
"""Keys that make a run what it is and that older runs do not name, with what they mean by that."""


def resumed_config(folder: RunFolder, composition: Composition, *, restarted: bool = False) -> dict[str, Any]:
    """Returns the configuration that a run goes on with.

    Single keys that were typed are changed; those that make the run what it is are refused where they differ, but for
    those that a configuration calls ``practical``. Groups that were chosen, by themselves or within an experiment, are
    taken as a whole where a run may change them, and refused where they differ in what the run is.

    Args:
        restarted: whether its job was restarted with the command line that began it.

    Raises:
        ConfigError: naming the first key that differs.
    """
    before = folder.record["config"]
    config, typed = with_overrides(before, composition.overrides), set(composition.selected)
    if not restarted:
        _refuse_other_keys(before, composition.overrides, folder)
        if "experiment" in typed:
            typed |= {*KEPT, *CHOSEN}
        if typed & set(KEPT):
            chosen = with_recorded_paths(composition.config, load_domain(composition.config["domain"]))
        for group in sorted(typed & set(KEPT)):
            _refuse_other(group, config.get(group, OLDER.get(group)), chosen[group], folder)
        config |= {group: composition.config[group] for group in sorted(typed & {*CHOSEN, *TYPED})}
    return _with_own_decays(config, before)


def _refuse_other_keys(before: Mapping[str, Any], overrides: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuses typed keys that would make another run of it; those that say how it is computed may change."""
    kept = {key: value for key, value in overrides.items() if key.partition(".")[0] in KEPT}
    if not kept:
        return
    domain = load_domain(before["domain"])
    kinds = {
        "data": domain.data_config,
        "task": domain.task_config,
        "model": domain.model_kinds.get(before["model"].get("kind")),
    }
    for key, value in kept.items():
        group, name = key.split(".")[:2]
        if name not in getattr(kinds.get(group), "practical", ()):
            chosen = with_overrides({group: before[group]}, {key: value})[group]
            _refuse_other(group, before[group], chosen, folder)


def _refuse_other(group: str, own: Any, chosen: Any, folder: RunFolder) -> None:
    """Refuses a group, or a value, that differs from the run's; null leaves it to the data, and so to the run."""
    mine = flat(own, group)
    for key, value in flat(chosen, group).items():
        if value not in (None, AUTO, [AUTO]) and _comparable(mine.get(key)) != _comparable(value):
            raise ConfigError(
                f"{folder.path} was begun with {plain(mine.get(key), quoted=True)} and cannot resume with "
                f"{plain(value, quoted=True)}",
                key=key,
                hint="leave it out, or begin a new run, with init_from= if its weights are to be taken over",
            )


def _comparable(value: Any) -> Any:
    return [_comparable(part) for part in value] if isinstance(value, (list, tuple)) else value


def _with_own_decays(config: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Fixes the length of each model's cosine to what it was when the run began: in a longer training no rate must
    jump, and a reference model must not take over the length of the run's own, for which it has another one.
    """
    found = {"optim.decay_steps": _own_decay(config, before)}
    kept = before.get("reference_models") or {}
    for name, entry in (config.get("reference_models") or {}).items():
        if isinstance(entry, Mapping) and isinstance(kept.get(name), Mapping):
            with suppress(ConfigError):  # refused by its name when the specification is built
                own = with_entry(config, name, entry), with_entry(before, name, kept[name])
                found[f"reference_models.{name}.optim.decay_steps"] = _own_decay(*own)
    return with_overrides(config, {key: steps for key, steps in found.items() if steps is not None})


def _own_decay(config: Mapping[str, Any], before: Mapping[str, Any]) -> int | None:
    """Returns the steps of a model's decay when its run began; None where there is nothing to be fixed."""
    optim, old = config.get("optim"), before.get("optim")
    if not isinstance(optim, Mapping) or not isinstance(old, Mapping):
        return None  # refused when the specification is built
    if optim.get("decay_steps") is not None or "wsd" in (optim.get("schedule"), old.get("schedule")):
        return None
    return old.get("decay_steps") or max(1, before["trainer"]["max_steps"] - old["warmup_steps"])
