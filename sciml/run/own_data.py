"""Leaves behind what a domain's default data say of themselves, where a run has data of its own.

``data.path=mine.nc`` chooses other data. The title, the splits, the symmetries and the like of the option in
``conf/data`` that the domain comes with are those of its own data, and would be wrong claims about others. An option
that was chosen by name (``data=...``) stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sciml.core.groups import option_file

PATH = "path"


def without_claims_of_default_data(
    config: dict[str, Any], choices: Mapping[str, str | None], typed: Collection[str], config_dir: str | None
) -> dict[str, Any]:
    """Returns a composed configuration without what only holds for the default data of its domain.

    Args:
        choices: option of each group that was composed, e.g. ``{"domain": "climate", "data": "climate_archive"}``.
        typed: dotted keys, and names of groups, of the command line.
        config_dir: another folder with groups.
    """
    data, domain, option = config.get("data"), choices.get("domain"), choices.get("data")
    if not isinstance(data, dict) or not option or "data" in typed or option != _default_data(domain, config_dir):
        return config
    usual = _read(option_file("data", option, config_dir))
    if usual.get(PATH) == data.get(PATH):
        return config
    return {**config, "data": _without(data, usual, "data", typed)}


def _without(
    values: Mapping[str, Any], usual: Mapping[str, Any], prefix: str, typed: Collection[str]
) -> dict[str, Any]:
    """Returns values without those that are as usual and were not typed."""
    kept = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        if isinstance(value, Mapping) and isinstance(usual.get(name), Mapping) and key not in typed:
            if rest := _without(value, usual[name], key, typed):
                kept[name] = rest
        elif name not in usual or value != usual[name] or key in typed:
            kept[name] = value
    return kept


def _default_data(domain: str | None, config_dir: str | None) -> str | None:
    """Returns the option of ``data`` that a domain's file names."""
    defaults = _read(option_file("domain", domain, config_dir)).get("defaults", []) if domain else []
    named = [entry["/data"] for entry in defaults if isinstance(entry, Mapping) and "/data" in entry]
    return named[0] if named else None


def _read(file: Path | None) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return {} if file is None else OmegaConf.to_container(OmegaConf.load(file), resolve=False)  # type: ignore[return-value]
