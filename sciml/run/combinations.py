"""The trainings that a sweep stands for: every combination of the values that its keys are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from sciml.core.errors import ConfigError
from sciml.core.progress import track
from sciml.run.compose import Composition, compose
from sciml.run.early_checks import check_groups
from sciml.run.overrides import parts_of

MOST = 200


@dataclass(frozen=True)
class Combination:
    """Holds one training of a sweep.

    Attributes:
        keys: those that are swept, with their values as typed.
        composition: the training.
    """

    keys: Mapping[str, str]
    composition: Composition

    @property
    def label(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.keys.items())


def combinations(arguments: Sequence[str], config_dir: str | None = None) -> list[Combination]:
    """Returns the trainings that a command line stands for, their keys checked without torch.

    Args:
        arguments: ``key=value``; a value with commas outside of brackets and quotes is several.

    Raises:
        ConfigError: where one of them cannot work, or no key has several values.
    """
    choices = [[(key, value) for value in parts_of(values)] for key, _, values in (a.partition("=") for a in arguments)]
    several = [key for ((key, _), *more) in choices if more]
    for choice in choices:
        if twice := [value for number, (_, value) in enumerate(choice) if (choice[0][0], value) in choice[:number]]:
            raise ConfigError(f"{twice[0]} is there twice", key=choice[0][0], hint="give each value once")
    if not several:
        raise ConfigError("no key has several values", key="--multirun", hint="e.g. -m optim.lr=1e-3,3e-3")
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST:
        raise ConfigError(f"{count} trainings are more than {MOST}", key="--multirun", hint="sweep fewer values")
    found = []
    for chosen in track(list(product(*choices)), "composing trainings"):
        composition = compose("train", [f"{key}={value}" for key, value in chosen], config_dir)
        check_groups(composition.config)
        found.append(Combination({key: value for key, value in chosen if key in several}, composition))
    return found
