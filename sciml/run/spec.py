"""The specification of a run: a composed configuration, checked, typed and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sciml.core.config import build
from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.installation import recorded
from sciml.core.result import Output
from sciml.core.sentences import plain
from sciml.core.types import AtLeastOne, FilePath, NonNegative
from sciml.domain.loading import load_domain
from sciml.domain.optional import DataDefaults, FollowsData, PlansWithoutData
from sciml.domain.protocol import Domain, Splits
from sciml.parallel.config import ParallelConfig
from sciml.run.early_checks import Seed, build_groups
from sciml.run.folder import RunFolder
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.engine_config import EngineConfig
from sciml.training.tracking import TrackingConfig

if TYPE_CHECKING:
    from torch import nn

GROUPS = ("domain", "data", "task", "model", "trainer", "optim", "parallel", "engine", "tracking")
"""Groups of keys that a run is made of."""


@dataclass(frozen=True)
class RunOptions:
    """Holds the keys of a training about its folder, what it starts from, and the models that are trained beside it.

    Attributes:
        runs_dir: folder of all runs.
        run: name of a new run; None names it by time.
        resume: an earlier run to continue: its folder, its name, or ``latest``.
        init_from: a run whose weights this one starts from, named likewise.
        freeze: patterns of names of parameters that stay as they start, e.g. ``[encoder.elements.*]``.
        lora_rank: rank of the change that each matrix learns, which itself stays; 0 trains the matrices themselves.
        reference_models: by name, the keys in which each differs from the run, e.g.
            ``{"wide": {"model": {"embed_dim": 256}}}``, and beside them its ``budget``: seconds of training, ``equal``
            for as much as the run's own costs (``at_most_s`` is a limit to that), or None for as many steps. None in
            place of a model, or of all, leaves out what a domain or an experiment has.
        seeds: how many seeds each model is trained from, the run's own first.
    """

    runs_dir: str = "runs"
    run: str | None = None
    resume: str | None = None
    init_from: str | None = None
    freeze: tuple[str, ...] = ()
    lora_rank: NonNegative[int] = 0
    reference_models: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: AtLeastOne = 1
    output: Output = "text"

    def __post_init__(self) -> None:
        if self.resume and self.init_from:
            raise ConfigError("cannot be given together with resume", key="init_from", hint="leave one of them out")

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> RunOptions:
        """Picks them out of a composed configuration and checks them."""
        values = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        entries = values.get("reference_models", {}) or {}
        values["reference_models"] = entries
        if isinstance(entries, Mapping):  # null leaves one out that a domain or an experiment has
            values["reference_models"] = {name: entry for name, entry in entries.items() if entry is not None}
        return build(cls, values)


@dataclass(frozen=True)
class RunSpec:
    """Holds everything that a run is made of; building it touches no data and no device.

    Attributes:
        data, task: of the types ``domain.data_config`` and ``domain.task_config``.
        model: of the type that ``domain.model_kinds`` has for its kind.
        config: the plain configuration that all of this was built from, as ``run.json`` keeps it.
    """

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
    options: RunOptions
    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def build(cls, config: Mapping[str, Any]) -> RunSpec:
        """Builds the specification that a composed configuration describes.

        Raises:
            ConfigError: for anything that cannot work.
        """
        known = {*GROUPS, "seed", *(f.name for f in fields(RunOptions))}
        for name in config:
            if name not in known:
                raise ConfigError("unknown key", key=name, hint=nearest(name, known))
        for name in GROUPS:
            if not isinstance(config.get(name), Mapping):
                raise ConfigError(f"must be a group of keys, got {plain(config.get(name))}", key=name)
        domain = load_domain(config["domain"])
        config = with_recorded_paths(config, domain)
        spec = cls(
            domain=domain,
            model=_build_model_config(config["model"], domain),
            data=build(domain.data_config, config["data"], prefix="data"),
            task=build(domain.task_config, config["task"], prefix="task"),
            **build_groups(config),
            seed=build(Seed, {"seed": config.get("seed")}).seed,
            options=RunOptions.build(config),
            config=config,
        )
        domain.check(spec)
        spec._check_fine_tuning()
        return spec

    def build_model(self, schema: Any) -> nn.Module:
        """Builds the domain's model for one device, with what stays and what learns a change of low rank.

        Raises:
            ConfigError: where ``freeze`` or ``lora_rank`` do not suit it.
        """
        from sciml.nn.low_rank import add_low_rank, freeze

        model = self.domain.model(self, schema)
        add_low_rank(model, self.options.lora_rank)
        freeze(model, self.options.freeze)
        return model

    def _check_fine_tuning(self) -> None:
        options = self.options
        key = "freeze" if options.freeze else "lora_rank"
        if not (options.freeze or options.lora_rank):
            return
        if self.engine.name != "native":
            raise ConfigError("DeepSpeed's engine trains all parameters", key=key, hint="engine=native")
        if self.parallel.pp > 1 and options.freeze:
            raise ConfigError("a pipeline trains something in every stage", key=key, hint="parallel.pp=1")


def spec_of_run(folder: RunFolder, overrides: Mapping[str, Any] | None = None) -> RunSpec:
    """Builds the specification of a run from its ``run.json``.

    Args:
        overrides: values to change, by dotted key.

    Raises:
        DataError: where the file itself does not describe a run.
        ConfigError: where the overrides do not fit.
    """
    config = folder.record["config"]
    try:
        spec = RunSpec.build(config)
    except ConfigError as error:
        raise DataError(f"{folder.record_file}: {error}") from None
    return RunSpec.build(with_overrides(config, overrides)) if overrides else spec


def planned_data(spec: RunSpec) -> tuple[RunSpec, Splits]:
    """Returns a specification in which the data have decided what was left to them, and samples of the shape of theirs.

    Nothing is read of domains that can do without.

    Raises:
        ConfigError, DataError: where the data do not fit.
    """
    domain = spec.domain
    if isinstance(domain, PlansWithoutData):
        spec = _decided(spec, domain.planned_defaults(spec))
        return spec, domain.planned_splits(spec)
    spec, _ = follow_data(spec)
    return spec, spec.domain.splits(spec)


def follow_data(spec: RunSpec, source: RunSpec | None = None) -> tuple[RunSpec, str]:
    """Returns a specification in which the data have decided what was left to them, and the sentence that says so.

    Args:
        source: of the run whose weights the training starts from.

    Raises:
        ConfigError, DataError: where the data do not fit.
    """
    if not isinstance(spec.domain, FollowsData):
        return spec, ""
    chosen = spec.domain.data_defaults(spec, source)
    return _decided(spec, chosen), chosen.sentence


def _decided(spec: RunSpec, chosen: DataDefaults) -> RunSpec:
    return RunSpec.build(with_overrides(spec.config, chosen.values)) if chosen.values else spec


def with_overrides(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with other values; unknown keys within a group are refused when it is built.

    Args:
        overrides: values by dotted key, e.g. ``{"data.path": "other.zarr"}``.

    Raises:
        ConfigError: where a group of keys does not exist.
    """
    changed = dict(config)
    for key, value in overrides.items():
        *groups, name = key.split(".")
        if groups and not isinstance(changed.get(groups[0]), Mapping):
            raise ConfigError("unknown group of keys", key=groups[0], hint=nearest(groups[0], config))
        values = changed
        for group in groups:
            values[group] = dict(values[group]) if isinstance(values.get(group), Mapping) else {}
            values = values[group]
        values[name] = value
    return changed


def with_recorded_paths(config: Mapping[str, Any], domain: Domain) -> dict[str, Any]:
    """Returns a configuration whose data can be found again from any folder, see :mod:`sciml.core.installation`."""
    kinds = get_type_hints(domain.data_config, include_extras=True)
    named = {f.name: f.default for f in fields(domain.data_config) if _names_files(kinds[f.name])}
    left_out = {name: default for name, default in named.items() if isinstance(default, str)}
    data = {**left_out, **config["data"]}
    return {**config, "data": {name: _recorded(value, name in named) for name, value in data.items()}}


def _recorded(value: Any, names_files: bool) -> Any:
    if not names_files:
        return value
    if isinstance(value, Mapping):
        return {name: _recorded(part, True) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_recorded(part, True) for part in value]
    return recorded(value) if isinstance(value, str) else value


def _names_files(kind: Any) -> bool:
    """Says whether a type is, or has in it, that of paths."""
    return kind == FilePath or any(_names_files(part) for part in get_args(kind))


def _build_model_config(values: Mapping[str, Any], domain: Domain) -> Any:
    """Returns the model's configuration record, by its kind; refuses a kind that the domain cannot use."""
    kind = str(values.get("kind"))
    if kind not in domain.model_kinds:
        raise ConfigError(
            f"a model of kind {kind!r} cannot serve domain={domain.name}, which takes "
            f"{' or '.join(sorted(domain.model_kinds))}",
            key="model",
            hint="leave model= out to take the domain's default",
        )
    return build(domain.model_kinds[kind], values, prefix="model")
