"""Composes a command's configuration from ``conf`` and the command line, with Hydra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml.core.command_line import command, quoted
from sciml.core.errors import ConfigError, close_match, nearest
from sciml.core.groups import options
from sciml.core.installation import CONF, OWN_CONF
from sciml.core.sentences import plain as shown
from sciml.domain.trust import declare_domain
from sciml.run.early_checks import KINDS, known_names
from sciml.run.option_domains import OF_A_DOMAIN, check_fits
from sciml.run.overrides import WRITE, as_override
from sciml.run.own_data import without_claims_of_default_data

MADE = {"cluster=this_machine": "doctor"}
"""Options that a verb writes when it is asked to measure, and that are not there before."""

USES_A_RUN = {
    "evaluate": ("data", "task", "parallel", "trainer.micro_batch_size", "trainer.global_batch_size",
                 "trainer.verify_checksums"),
    "forecast": ("data", "task", "trainer.verify_checksums"),
}  # fmt: skip
"""Verbs whose dotted keys change the configuration that a run was trained with, and those that mean something then."""


@dataclass(frozen=True)
class Composition:
    """Holds a composed command line.

    Attributes:
        config: the defaults of the command with what was typed, as plain dicts and lists.
        overrides: what was typed of keys within groups, by dotted key, e.g. ``{"trainer.max_steps": 100}``.
        arguments: the command line itself, for commands that start trainings of their own.
        selected: names of the groups, and of the keys outside of groups, that were typed.
    """

    config: dict[str, Any]
    overrides: dict[str, Any]
    arguments: tuple[str, ...] = ()
    selected: frozenset[str] = frozenset()


def compose(verb: str, arguments: Sequence[str], config_dir: str | None = None) -> Composition:
    """Composes ``conf/<verb>.yaml`` with a command line.

    Args:
        arguments: ``key=value``, as they are typed, see :mod:`sciml.run.overrides`.
        config_dir: another folder with the same groups, searched before the project's own; a domain of one's
            own lives there.

    Raises:
        ConfigError: in one sentence, whatever Hydra or OmegaConf found wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    arguments = [as_override(argument) for argument in arguments]
    _refuse_meaningless(verb, arguments)
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"{config_dir} is no folder", key="--config-dir", hint="name one with groups such as domain/")
    folders = [Path(folder).resolve() for folder in (config_dir, OWN_CONF) if folder and Path(folder).is_dir()]
    search = [f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in folders)}]"]
    plain = _keys_named_as_groups(verb)
    composed = [
        _added(argument)
        for argument in arguments
        if not (verb in USES_A_RUN and _is_dotted(argument)) and root_of(argument) not in plain
    ]
    try:
        typed = OverridesParser.create().parse_overrides(list(arguments))
        _check_options([one for one in typed if one.key_or_group not in plain], config_dir)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose(verb, overrides=[*search, *composed], return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        for one in typed:
            if one.key_or_group in (*OF_A_DOMAIN, "experiment") and isinstance(option := one.value(), str):
                check_fits(one.key_or_group, option, str(choices.get("domain")))
        config = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
        _declare_domains(config, config_dir)
        values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        values |= {one.key_or_group: _typed(one) for one in typed if one.key_or_group in plain}
        return Composition(
            without_claims_of_default_data(values, choices, {one.key_or_group for one in typed}, config_dir),
            {one.key_or_group: _typed(one) for one in typed if "." in one.key_or_group and not one.is_delete()},
            (*([f"--config-dir={config_dir}"] if config_dir else []), *arguments),
            frozenset(one.key_or_group for one in typed if "." not in one.key_or_group),
        )
    except (HydraException, OmegaConfBaseException, ValueError, YAMLError) as error:
        raise _explain(error, verb, arguments, config_dir) from None


def _refuse_meaningless(verb: str, arguments: Sequence[str]) -> None:
    """Refuses keys that would be taken, and change nothing."""
    for argument in arguments:
        key = argument.partition("=")[0].lstrip("+~")
        if root_of(argument) == "hydra":
            raise ConfigError(
                "keys of Hydra itself change nothing here", key=key, hint="runs_dir= names the folder of runs"
            )
        allowed = USES_A_RUN.get(verb)
        if allowed and "." in key and not any(key == name or key.startswith(f"{name}.") for name in allowed):
            known = ", ".join(name if "." in name else f"{name}.*" for name in allowed)
            raise ConfigError(f"means nothing to {verb}: the model is trained", key=key, hint=f"it takes {known}")


def _keys_named_as_groups(verb: str) -> set[str]:
    """Returns a verb's own keys that Hydra would take for the choice of an option: ``domain`` of ``runs``."""
    from yaml import safe_load

    own = safe_load((CONF / f"{verb}.yaml").read_text(encoding="utf-8"))
    return {name for name in own if name != "defaults" and (CONF / name).is_dir()}


def _check_options(typed: Sequence[Any], config_dir: str | None) -> None:
    """Refuses a number, true, false or null where an option of a group is to be named."""
    for one in typed:
        group, value = one.key_or_group, None if one.is_delete() else one.value()
        if not one.is_delete() and (value is None or isinstance(value, int | float)) and options(group, config_dir):
            known = nearest(str(value), options(group, config_dir))
            raise ConfigError(f"must be the name of an option, got {shown(value)}", key=group, hint=known)


def _declare_domains(config: Any, config_dir: str | None) -> None:
    """Lets runs of the user's own domains be opened: the one that was composed, and those in the user's folder."""
    from omegaconf import OmegaConf

    declare_domain(OmegaConf.to_container(config).get("domain"))  # type: ignore[union-attr]
    for file in sorted(Path(config_dir).glob("domain/*.yaml")) if config_dir else ():
        option = OmegaConf.to_container(OmegaConf.load(file))
        if not isinstance(option, Mapping):
            raise ConfigError(f"{file} is no mapping of keys", key="--config-dir")
        declare_domain(option.get("domain"))


def _typed(override: Any) -> Any:
    """Returns the value of an override; OmegaConf, which undoes escapes of its own, has no part in it."""
    value = override.value()
    return value.replace(r"\${", "${") if isinstance(value, str) else value


def root_of(argument: str) -> str:
    """Returns the key of an override up to its first dot."""
    return re.split(r"[.=@]", argument.lstrip("+~"), maxsplit=1)[0]


def _is_dotted(argument: str) -> bool:
    return "." in argument.partition("=")[0]


def _added(argument: str) -> str:
    """Returns an argument in the form that also sets what a yaml file leaves out: keys in groups, and groups
    that are open.
    """
    may_be_new = _is_dotted(argument) or "={" in argument  # the dataclasses refuse keys that do not exist
    return f"++{argument}" if may_be_new and argument[0] not in "+~" else argument


def _explain(error: Exception, verb: str, arguments: Sequence[str], config_dir: str | None) -> ConfigError:
    """Turns Hydra's message into one sentence, with the nearest name that exists."""
    text = str(error)
    if match := re.search(r"Could not find '(?P<group>[\w/]+)/(?P<option>[^'/]*)'", text):
        group, option = match["group"], match["option"]
        if group == verb:  # its keys are those of the domain's own file
            served = ", ".join(options(group, config_dir))
            return ConfigError(f"{verb} is not for domain={option}", key="domain", hint=f"it is for {served}")
        if made_by := MADE.get(f"{group}={option}"):
            hint = f"measure it once with: {command(made_by, '--measure')}"
            return ConfigError("this machine was not measured yet", key=group, hint=hint)
        return ConfigError(f"unknown option {option!r}", key=group, hint=nearest(option, options(group, config_dir)))
    for argument in arguments:
        key = argument.split("=", 1)[0].lstrip("+~")
        known = keys_of(verb, config_dir, arguments) if key and key in text else [key]
        if key not in known:
            parent = key.rpartition(".")[0]
            near = [name for name in known if name.rpartition(".")[0] == parent] or known
            inside = [name for name in known if not name.startswith("reference_models.")]
            elsewhere = None if parent else close_match(key, [n for n in inside if "." in n], exact=True)
            return ConfigError("unknown key", key=key, hint=elsewhere or nearest(key, near))
    return ConfigError(" ".join(text.split()), hint=WRITE)


def keys_of(verb: str, config_dir: str | None = None, arguments: Sequence[str] = ()) -> list[str]:
    """Returns every key of a verb's default configuration and of its groups, dotted.

    Args:
        arguments: a command line, whose domain decides which keys there are.
    """

    def walk(config: Mapping[str, Any], prefix: str) -> list[str]:
        keys = []
        for name, value in config.items():
            keys.append(f"{prefix}{name}")
            if isinstance(value, Mapping):
                keys += walk(value, f"{prefix}{name}.")
        return keys

    known = {f"domain={option}" for option in options("domain", config_dir)}
    domain = [argument for argument in arguments if argument in known][-1:]
    domain = [] if domain == list(arguments) else domain  # which does not compose, and would end here again
    config = compose(verb, domain, config_dir).config
    groups = [group for group in (*KINDS, *OF_A_DOMAIN) if isinstance(config.get(group), Mapping)]
    return walk(config, "") + [f"{group}.{name}" for group in groups for name in known_names(group, config)]
