"""Composing a configuration with Hydra and turning it into checked, frozen records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sciml.core.config import build, positive
from sciml.core.errors import ConfigError, nearest
from sciml.core.groups import CONF, options
from sciml.domain.loading import load_domain
from sciml.domain.protocol import Domain
from sciml.parallel.config import ParallelConfig
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.tracking import TrackingConfig


def compose(verb: str, overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Any]:
    """Composes ``conf/<verb>.yaml`` with the command line's overrides into plain dicts and lists.

    Args:
        config_dir: another folder with the same groups, searched before the project's own; a domain of one's
            own lives there.

    Raises:
        ConfigError: in one sentence, whatever Hydra or OmegaConf found wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        if "=" not in override and override[0] != "~":
            raise ConfigError("is no override", key=override, hint="write key=value, e.g. trainer.max_steps=100")
    if config_dir and not Path(config_dir).is_dir():
        raise ConfigError(f"{config_dir} is no folder", key="--config-dir", hint="name one with groups such as domain/")
    dotted = [override for override in overrides if _is_dotted(override)]
    composed = [override for override in overrides if override not in dotted]
    if verb not in USES_A_RUN:
        # Keys that a yaml file leaves at their defaults may be set too; the dataclasses refuse what does not exist.
        composed += [override if override[0] in "+~" else f"++{override}" for override in dotted]
    # so may groups that are open, such as companions
    composed = [f"++{override}" if "={" in override and override[0] not in "+~" else override for override in composed]
    search = [f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"] if config_dir else []
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra_compose(verb, overrides=[*search, *composed])
        values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        return {**values, "changes": _changes(overrides)}
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, verb, overrides, config_dir) from None


USES_A_RUN = ("evaluate", "forecast")
"""Verbs whose dotted keys change the configuration that a run was trained with."""


def _is_dotted(override: str) -> bool:
    return "." in override.partition("=")[0]


def root_of(argument: str) -> str:
    """The key of an override up to its first dot."""
    return re.split(r"[.=@]", argument.lstrip("+~"), maxsplit=1)[0]


def _changes(overrides: Sequence[str]) -> dict[str, Any]:
    """The dotted overrides as nested dicts: what is to change in the configuration of an earlier run."""
    from omegaconf import OmegaConf

    dotted = [override.lstrip("+") for override in overrides if _is_dotted(override) and override[0] != "~"]
    return OmegaConf.to_container(OmegaConf.from_dotlist(dotted))  # type: ignore[return-value]


def _explain(error: Exception, verb: str, overrides: Sequence[str], config_dir: str | None) -> ConfigError:
    """Hydra's message in one sentence, with the nearest name that exists."""
    text = str(error)
    if match := re.search(r"Could not find '(?P<group>[\w/]+)/(?P<option>[^'/]+)'", text):
        group, option = match["group"], match["option"]
        return ConfigError(f"unknown option {option!r}", key=group, hint=nearest(option, options(group, config_dir)))
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key in text:
            known = keys_of(verb, config_dir)
            parent = key.rpartition(".")[0]
            near = [name for name in known if name.rpartition(".")[0] == parent] or known
            return ConfigError("unknown key", key=key, hint=nearest(key, near))
    return ConfigError(" ".join(text.split()), hint="write overrides as key=value, e.g. trainer.max_steps=100")


def keys_of(verb: str, config_dir: str | None = None) -> list[str]:
    """Every key of a verb's default configuration, dotted."""

    def walk(values: Mapping[str, Any], prefix: str) -> list[str]:
        found = []
        for name, value in values.items():
            found.append(f"{prefix}{name}")
            if isinstance(value, Mapping):
                found += walk(value, f"{prefix}{name}.")
        return found

    return walk(compose(verb, [], config_dir), "")


@dataclass(frozen=True)
class Experiment:
    """Everything a run is made of: the domain with its data, task and model, and how it is trained."""

    domain: Domain
    data: Any
    task: Any
    model: Any
    trainer: TrainerConfig
    optim: OptimConfig
    parallel: ParallelConfig
    engine: EngineConfig
    tracking: TrackingConfig
    seed: int


@dataclass(frozen=True)
class RunKeys:
    """The keys of a training that are about the run's folder, and what is trained in it besides."""

    runs_dir: str = "runs"
    run: str | None = None
    resume: str | None = None
    init_from: str | None = None
    output: str = "text"
    companions: dict[str, dict[str, Any]] = field(default_factory=dict)
    repeats: int = 1

    def __post_init__(self) -> None:
        positive(self.repeats, "repeats", example=1)
        if self.resume and self.init_from:
            raise ConfigError("cannot be given together with resume", key="init_from", hint="leave one of them out")


def build_experiment(values: Mapping[str, Any]) -> Experiment:
    """Checks a composed configuration and freezes it; touches no data and no device.

    Raises:
        ConfigError: for anything that cannot work.
    """
    known = {f.name for f in (*fields(Experiment), *fields(RunKeys))}
    for name in values:
        if name not in known | {"changes"}:
            raise ConfigError("unknown key", key=name, hint=nearest(name, known))
    domain = load_domain(values["domain"])
    model = build_model_config(values["model"], domain)
    experiment = Experiment(
        domain=domain,
        data=build(domain.data_config, values["data"], prefix="data"),
        task=build(domain.task_config, values["task"], prefix="task"),
        model=model,
        trainer=build(TrainerConfig, values["trainer"], prefix="trainer"),
        optim=build(OptimConfig, values["optim"], prefix="optim"),
        parallel=build(ParallelConfig, values["parallel"], prefix="parallel"),
        engine=build(EngineConfig, values["engine"], prefix="engine"),
        tracking=build(TrackingConfig, values["tracking"], prefix="tracking"),
        seed=build(_Seed, {"seed": values["seed"]}).seed,
    )
    domain.check(experiment)
    return experiment


def build_model_config(values: Mapping[str, Any], domain: Domain) -> Any:
    """The model's configuration record, by its kind; refuses a kind that the domain cannot use."""
    kind = str(values.get("kind"))
    if kind not in domain.model_kinds:
        raise ConfigError(
            f"a model of kind {kind!r} cannot serve domain={domain.name}, which takes "
            f"{' or '.join(sorted(domain.model_kinds))}",
            key="model",
            hint="leave model= out to take the domain's default",
        )
    return build(domain.model_kinds[kind], values, prefix="model")


def build_run_keys(values: Mapping[str, Any]) -> RunKeys:
    """The keys about the run's folder."""
    return build(RunKeys, {f.name: values[f.name] for f in fields(RunKeys) if f.name in values})


@dataclass(frozen=True)
class _Seed:
    seed: int
