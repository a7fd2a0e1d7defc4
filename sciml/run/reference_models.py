"""Models that are trained beside a run's own to judge it by: the same but for a few keys, on the same data.

``companions`` names them with what is other, e.g. ``{coarse: {model: {ratios: [], budgets: []}}}``; with ``repeats``
above 1 each of them, and the run's own model, is trained again from further seeds. They lie in the run's folder under
``companions/NAME-REPEAT``, are runs themselves, and go on where they stand when the run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sciml.distributed.world import World
from sciml.run.folder import RunFolder
from sciml.run.loaded import with_changes
from sciml.run.session import say, set_up
from sciml.run.spec import build_experiment

OWN = "model"
"""Name of the run's own model."""


def check_companions(values: Mapping[str, Any]) -> None:
    """Refuses companions that cannot work, before anything is trained.

    Raises:
        ConfigError: as for the run's own configuration.
    """
    for _, _, companion in companions_of(values):
        build_experiment(companion)


def train_companions(folder: RunFolder, world: World) -> bool:
    """Trains what is not trained yet; False where a signal ended it early."""
    for name, repeat, values in companions_of(folder.record["config"]):
        say(world, f"companion {name}" + f", seed {values['seed']}" * (repeat > 0))
        if not set_up(values, world, place=place_of(folder, name, repeat)).fit():
            return False
    return True


def place_of(folder: RunFolder, name: str, repeat: int) -> Path:
    """The folder of a companion."""
    return folder.path / "companions" / f"{name}-{repeat}"


def companions_of(config: Mapping[str, Any]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Name, number of the repeat and configuration of each companion, all of the first seed first."""
    changes = {OWN: {}, **(config.get("companions") or {})}
    for repeat in range(config.get("repeats", 1)):
        for name, changed in changes.items():
            if (name, repeat) != (OWN, 0):
                values = with_changes(config, changed)
                yield name, repeat, {**values, "seed": values["seed"] + repeat, "companions": {}, "repeats": 1}


def companion_runs(folder: RunFolder) -> dict[str, list[RunFolder]]:
    """The trained companions of a run by name; further seeds of its own model are left out."""
    found: dict[str, list[RunFolder]] = {}
    for name, repeat, _ in companions_of(folder.record["config"]):
        place = place_of(folder, name, repeat)
        if name != OWN and (place / "run.json").exists():
            found.setdefault(name, []).append(RunFolder(place))
    return found
