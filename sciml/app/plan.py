"""Will it fit, how fast, and which strategy: a training planned on a cluster, without running anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sciml.core.config import build, one_of
from sciml.core.errors import ConfigError
from sciml.core.files import check_writable, write_json
from sciml.core.provenance import now
from sciml.core.result import CommandResult, Output
from sciml.core.types import AtLeastOne, FractionBelowOne, Positive, PositiveFraction
from sciml.distributed.axes import SAMPLES, num_ranks
from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import GB, ClusterConfig, Efficiency
from sciml.planning.dry_run import dry_run
from sciml.planning.model_facts import ModelFacts
from sciml.planning.parameters import MEGATRON_FP16, Accounting
from sciml.planning.ranking import Plan
from sciml.planning.scaling_curve import scaling_curve
from sciml.planning.search import Search
from sciml.planning.space import FIXED, SearchConstraints
from sciml.planning.strategy import TrainingSpec
from sciml.report.plan_document import plan_document
from sciml.report.plan_summary import plan_text
from sciml.report.planning import draw_plan
from sciml.run.compose import Composition
from sciml.run.flops import model_facts
from sciml.run.spec import RunSpec, planned_data
from sciml.training.config import Precision
from sciml.training.engine_config import EngineConfig, EngineName

CURVE = (0.125, 0.25, 0.5, 1, 2)
"""Numbers of devices of the scaling curve, of those that are planned for."""
FARTHEST = 64
"""How many times the devices are looked at for something that fits, where the cluster's size is not known."""
ONE_OF_THEM = "leave one of them out"


ACCOUNTINGS = {"suite": None, "megatron_fp16": MEGATRON_FP16}
OLD_ACCOUNTINGS = {"talk": "megatron_fp16"}


@dataclass(frozen=True)
class PlanConfig:
    """Holds the keys of ``conf/plan.yaml``; what they mean is said there."""

    cluster: ClusterConfig
    devices: AtLeastOne
    samples: Positive[float] | None = None
    search: bool = True
    dry_run: bool = False
    precisions: tuple[Precision, ...] | None = None
    engines: tuple[EngineName, ...] | None = None
    accounting: str = "suite"
    margin: FractionBelowOne = 0.05
    compute_efficiency: PositiveFraction | None = None
    link_efficiency: PositiveFraction | None = None
    scaling: tuple[AtLeastOne, ...] | None = None
    rows: AtLeastOne = 10
    pictures: bool = True
    out: str | None = None
    output: Output = "text"

    def __post_init__(self) -> None:
        if self.accounting in OLD_ACCOUNTINGS:
            new = OLD_ACCOUNTINGS[self.accounting]
            raise ConfigError(
                f"is now called {new!r}, got {self.accounting!r}", key="accounting", hint=f"try accounting={new}"
            )
        one_of(self.accounting, ACCOUNTINGS, "accounting")
        self.cluster.check_for_plans()
        for devices in (self.devices, *(self.scaling or ())):
            self.check_devices(devices)

    def check_devices(self, devices: int) -> None:
        """Refuses numbers that a cluster does not give out."""
        cluster = self.cluster
        per_node = cluster.devices_per_node
        if devices > per_node and devices % per_node:
            raise ConfigError(
                f"must be a whole number of nodes with {per_node} devices, got {devices}",
                key="devices",
                hint=f"try devices={round(devices / per_node) * per_node}",
            )
        if cluster.num_nodes is not None and devices > cluster.num_nodes * per_node:
            most = cluster.num_nodes * per_node
            raise ConfigError(
                f"must be at most the {most} of {cluster.name}, got {devices}",
                key="devices",
                hint=f"try devices={most}",
            )

    @property
    def efficiency(self) -> Efficiency:
        return Efficiency(self.compute_efficiency, link=self.link_efficiency)

    @property
    def most_devices(self) -> int:
        """Returns the number of devices of the cluster, or of a much larger part than is planned for."""
        nodes = self.cluster.num_nodes
        return FARTHEST * self.devices if nodes is None else nodes * self.cluster.devices_per_node


def run(composition: Composition) -> CommandResult:
    """Plans, writes ``plan.json`` and pictures, and reports.

    Raises:
        ConfigError: for whatever could not be trained, and where nothing fits.
    """
    own = {field.name for field in fields(PlanConfig)}
    values, given = composition.config, composition.overrides
    config = build(PlanConfig, {name: value for name, value in values.items() if name in own})
    experiment = RunSpec.build({n: v for n, v in values.items() if n not in own} | {"output": config.output})
    constraints = constraints_of(config, experiment, given)
    training = _training(config, experiment, given)
    facts = facts_of(experiment, config.cluster, ACCOUNTINGS[config.accounting])
    out = Path(config.out) if config.out else _new_folder(str(values["runs_dir"]), experiment, config)
    check_writable(out)
    search = Search(facts, config.cluster, training, constraints, config.efficiency, config.margin)
    plan = search.plan(config.devices)
    if not plan.ranked:
        raise nothing_fits(plan, search, config)
    built = dry_run(search.memory, plan.best.strategy, config.cluster) if config.dry_run else []
    curve = scaling_curve(search, plan, _curve_numbers(config))
    document = plan_document(search, plan, curve, built)
    write_json(out / "plan.json", document)
    pictures = draw_plan(out, search, plan, curve) if config.pictures else []
    document = {**document, "folder": str(out), "pictures": [str(path) for path in pictures]}
    return CommandResult(document, plan_text(search, plan, curve, built, config.rows) + f"\n\nWritten to {out}")


def facts_of(experiment: RunSpec, cluster: ClusterConfig, accounting: Accounting | None = None) -> ModelFacts:
    """Returns the facts of an experiment's model and of one typical sample of its data."""
    experiment, splits = planned_data(experiment)
    return model_facts(experiment, splits, as_accelerator=cluster.device == "accelerator", accounting=accounting)


def _training(config: PlanConfig, experiment: RunSpec, given: Mapping[str, Any]) -> TrainingSpec:
    training = TrainingSpec.of(experiment.trainer, experiment.optim)
    if config.samples is None:
        return training
    if "trainer.max_steps" in given:
        raise ConfigError("cannot be given together with trainer.max_steps", key="samples", hint=ONE_OF_THEM)
    # The number of samples decides, where an experiment says how many seconds it usually trains.
    return replace(training, steps=math.ceil(config.samples / training.global_batch), budget_s=None)


def constraints_of(config: PlanConfig, experiment: RunSpec, given: Mapping[str, Any]) -> SearchConstraints:
    """Returns what the command line has decided: all it names, or everything with ``search=false``.

    Raises:
        ConfigError: where it contradicts itself, or the cluster.
    """
    trainer, parallel = experiment.trainer, experiment.parallel
    if config.precisions is not None and "trainer.precision" in given:
        raise ConfigError("cannot be given together with trainer.precision", key="precisions", hint=ONE_OF_THEM)
    if config.search:
        fixed = {name: getattr(parallel, name) for name in FIXED if f"parallel.{name}" in given}
        if "trainer.micro_batch_size" in given:
            fixed["micro_batch"] = trainer.micro_batch_size
        if "model.recompute" in given:
            fixed["recompute"] = experiment.model.recompute
    else:
        degrees = parallel.degrees(config.devices)
        fixed = {**degrees, "zero": parallel.zero, "schedule": parallel.schedule, "interleave": parallel.interleave}
        fixed["micro_batch"] = trainer.micro_batch(num_ranks(degrees, *SAMPLES))
        fixed["recompute"] = getattr(experiment.model, "recompute", "none")

    def allow(degrees: ParallelConfig) -> None:
        experiment.domain.check(replace(experiment, parallel=degrees))

    fixed = {name: value for name, value in fixed.items() if value is not None}
    own = experiment.engine
    engines = [own if name == own.name else EngineConfig(name) for name in config.engines or (own.name,)]
    return SearchConstraints(fixed, _precisions(config, experiment, given), tuple(engines), allow)


def _precisions(config: PlanConfig, experiment: RunSpec, given: Mapping[str, Any]) -> tuple[Precision, ...]:
    there = tuple(config.cluster.peak_tflops)
    wanted: tuple[Precision, ...]
    if config.precisions is not None:
        wanted, key = config.precisions, "precisions"
    elif experiment.trainer.precision != "auto" and ("trainer.precision" in given or not config.search):
        wanted, key = (experiment.trainer.precision,), "trainer.precision"
    else:  # both halves are as fast as one another; bf16 needs no loss scale
        half = [precision for precision in there if precision in ("bf16", "fp16")]
        found = (*sorted(half)[:1], *(precision for precision in there if precision == "fp32"))
        return found if config.search else found[:1]
    for precision in wanted:
        if precision not in there:
            raise ConfigError(
                f"must be one of {', '.join(there)}, which {config.cluster.name} has matrix units for, got {precision}",
                key=key,
            )
    return wanted


def nothing_fits(plan: Plan, search: Search, config: PlanConfig) -> ConfigError:
    """Says how far the closest strategy is from fitting, and on how many devices one would."""
    closest = plan.too_large[0]
    room = config.cluster.memory / GB
    smallest = search.smallest_that_fits(config.devices, config.most_devices)
    hint = f"the smallest number that would is devices={smallest}"
    if smallest is None:
        hint = f"nor on {config.most_devices}; take a smaller model, or a cluster whose devices have more memory"
    what = "weights and optimizer" if closest.only_state else "the closest strategy"
    return ConfigError(
        f"nothing fits {config.devices} devices of {config.cluster.name}: {what} ({closest.strategy.text}) would take "
        f"{closest.needed / GB:.1f} GB of the {room:g} GB of a device",
        key="devices",
        hint=hint,
    )


def _curve_numbers(config: PlanConfig) -> tuple[int, ...]:
    """Returns the numbers of devices of the scaling curve."""
    if not config.search:
        return ()
    if config.scaling is not None:
        return config.scaling
    around = {_whole(config.devices * factor, config.cluster.devices_per_node) for factor in CURVE}
    return tuple(sorted(n for n in around | {config.devices} if n <= config.most_devices))


def _whole(devices: float, per_node: int) -> int:
    """Returns the nearest number of devices that makes whole nodes; within one node any number."""
    return max(1, round(devices)) if devices <= per_node else max(1, round(devices / per_node)) * per_node


def _new_folder(runs_dir: str, experiment: RunSpec, config: PlanConfig) -> Path:
    name = f"{now():%Y%m%d-%H%M%S}-{experiment.domain.name}-{config.cluster.name}-{config.devices}"
    return Path(runs_dir) / "plans" / name
