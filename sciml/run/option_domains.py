"""Tells which domains an option of a group fits, from the files and the source alone."""

from __future__ import annotations

import re
from typing import Any

from sciml.core.described import Name, class_named, classes_by_key, keys_of
from sciml.core.errors import ConfigError
from sciml.core.groups import options
from sciml.core.installation import CONF

OF_A_DOMAIN = ("data", "task", "model")
"""Groups whose keys depend on the domain."""


def check_fits(group: str, option: str, domain: str) -> None:
    """Refuses an option that was made for other domains; of domains and options of a user's own nothing is known.

    Raises:
        ConfigError: it is one.
    """
    if domain not in options("domain") or not (CONF / group / f"{option}.yaml").is_file():
        return
    fits = domains_of(group, option)
    if fits and domain not in fits:
        raise ConfigError(
            f"{option} is for domain={' or '.join(fits)}, not for domain={domain}",
            key=group,
            hint="leave domain= out" if group == "experiment" else f"leave {group}= out to take the domain's default",
        )


def domains_of(group: str, option: str) -> list[str]:
    """Returns the domains that an option fits, as far as its file tells: by its kind, its keys or its paths."""
    file = CONF / group / f"{option}.yaml"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    domains = options("domain")
    if group == "experiment":
        return re.findall(r"override /domain: (\w+)", text) or ["climate"] * (
            "/domain" not in text and option != "none"
        )
    named = [domain for domain in domains if f"data/{domain}/" in text] if group == "data" else []
    if named or group not in OF_A_DOMAIN:
        return named
    values = _with_bases(group, option)
    return [domain for domain in domains if _fits(group, domain, set(values), str(values.get("kind", "")))]


def _with_bases(group: str, option: str) -> dict[str, Any]:
    """Returns the keys of an option with those of the options that it is based on."""
    from omegaconf import OmegaConf

    file = CONF / group / f"{option}.yaml"
    values: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else {}
    merged: dict[str, Any] = {}
    for base in values.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            merged |= _with_bases(group, base)
    return {**merged, **values}


def _fits(group: str, domain: str, keys: set[str], kind: str) -> bool:
    owner = domain_class(domain)
    if group == "model":
        return kind in classes_by_key(owner, "model_kinds")
    config = class_named(owner, f"{group}_config")
    return config is not None and keys <= set(keys_of(config))


def domain_class(option: str) -> Name:
    """Returns the class that an option of the group ``domain`` names."""
    from omegaconf import OmegaConf

    target = OmegaConf.select(OmegaConf.load(CONF / "domain" / f"{option}.yaml"), "domain._target_")
    module, _, name = str(target or "").rpartition(".")
    return Name(module, name)
