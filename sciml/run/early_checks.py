"""Checks what can be checked without torch, so that a wrong key is answered at once.

Groups that are the same in every domain are built; of a domain's own groups the names of keys are compared with what
the source of their dataclasses says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sciml.core.config import build
from sciml.core.described import Name, class_named, classes_by_key, keys_of
from sciml.core.errors import ConfigError, close_match, nearest
from sciml.core.types import NonNegative
from sciml.parallel.config import ParallelConfig
from sciml.run.option_domains import OF_A_DOMAIN
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.tracking import TrackingConfig

KINDS: Mapping[str, type] = {
    "trainer": TrainerConfig,
    "optim": OptimConfig,
    "parallel": ParallelConfig,
    "engine": EngineConfig,
    "tracking": TrackingConfig,
}
"""The dataclass of each group."""


@dataclass(frozen=True)
class Seed:
    """Holds the seed.

    Attributes:
        seed: of everything that is drawn.
    """

    seed: NonNegative[int]


def check_groups(config: Mapping[str, Any]) -> None:
    """Refuses keys and values of a training that are wrong whatever its domain.

    Raises:
        ConfigError: naming the key.
    """
    if all(isinstance(config.get(group), Mapping) for group in KINDS):
        _check_names(config)
        build_groups(config)
        build(Seed, {"seed": config.get("seed")})


def _check_names(config: Mapping[str, Any]) -> None:
    """Refuses a key that a group does not have, and names the group that has it."""
    known = {group: known_names(group, config) for group in (*KINDS, *OF_A_DOMAIN)}
    for group, names in known.items():
        for name in config.get(group) or () if names else ():
            if name not in names:
                elsewhere = [f"{other}.{one}" for other in known for one in known[other] if other != group]
                hint = close_match(name, names, exact=True, within=group) or close_match(name, elsewhere, exact=True)
                raise ConfigError("unknown key", key=f"{group}.{name}", hint=hint or nearest(name, names, group))


def known_names(group: str, config: Mapping[str, Any]) -> Collection[str]:
    """Returns the keys of a group; none where the source of a domain's dataclass does not tell them."""
    if group in KINDS:
        return {field.name for field in fields(KINDS[group])}
    domain, values = config.get("domain"), config.get(group)
    owner = group_class(group, domain, values) if isinstance(domain, Mapping) and isinstance(values, Mapping) else None
    return keys_of(owner) if owner is not None else {}


def group_class(group: str, domain: Mapping[str, Any], values: Mapping[str, Any]) -> Name | None:
    """Returns the dataclass of a group that depends on the domain; None where its source cannot be read.

    Args:
        domain: the group ``domain``.
        values: the group itself, whose ``kind`` decides for a model.
    """
    module, _, name = str(domain.get("_target_", "")).rpartition(".")
    if not module:
        return None
    owner = Name(module, name)
    if group == "model":
        return classes_by_key(owner, "model_kinds").get(str(values.get("kind")))
    return class_named(owner, f"{group}_config")


def build_groups(config: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the groups of a training that are the same in every domain, by their names.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    return {group: build(kind, config[group], prefix=group) for group, kind in KINDS.items()}
