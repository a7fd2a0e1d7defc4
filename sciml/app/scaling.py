"""How a model's error falls with its size and with what its training costs: many trainings, a law, and its check."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt

from sciml.app.plan import facts_of
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.files import read_json, write_json
from sciml.core.result import CommandResult, Output
from sciml.core.study_folder import alone, check_settings, is_begun, keep_settings
from sciml.core.types import Positive
from sciml.distributed.world import World, join
from sciml.models.widths import widened
from sciml.planning.cluster import ClusterConfig
from sciml.planning.scaling_law import Point, ScalingStudy
from sciml.report.scaling import draw_scaling, scaling_text
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder
from sciml.run.reference_models import OWN, build_reference_models
from sciml.run.session import TrainingSession, say
from sciml.run.spec import RunSpec, with_overrides

LEAST_STEPS = 20
"""Steps below which a training says nothing."""
LEAST = 3
"""Sizes, and budgets, that a law needs."""
BEYOND = 1.5
"""Largest factor of the training that checks a law, over the largest that it was fitted to."""
FREE = ("sizes", "budgets", "check", "target", "out", "output", "runs_dir")
"""Keys that may differ when a study goes on."""


@dataclass(frozen=True)
class ScalingConfig:
    """Holds the keys of ``conf/scaling.yaml``; what they mean is said there."""

    cluster: ClusterConfig
    sizes: tuple[Positive[float], ...]
    budgets: tuple[Positive[float], ...]
    check: Annotated[float, Gt(1)] | None = 2.0
    target: Positive[float] = 1e15
    out: str | None = None
    output: Output = "text"

    def __post_init__(self) -> None:
        for key in ("sizes", "budgets"):
            if len(set(getattr(self, key))) < LEAST:
                raise ConfigError(f"must be at least {LEAST} different numbers", key=key, hint=f"leave {key} out")


@dataclass(frozen=True)
class Member:
    """Describes one size of a family of models.

    Attributes:
        base: of a training of the family's own model.
        spec: of a training of this one, but for its steps.
        sample_flops: operations of a sample, forward and backward.
    """

    family: str
    factor: float
    base: RunSpec
    spec: RunSpec
    parameters: int
    sample_flops: float

    @classmethod
    def of(cls, family: str, spec: RunSpec, factor: float, cluster: ClusterConfig) -> Member:
        """Makes a member from the family's own model, by a factor on its widths."""
        keys = {f"model.{name}": value for name, value in widened(spec.model, factor).items()}
        alone = {"reference_models": {}, "seeds": 1, "trainer.budget_s": None}
        member = RunSpec.build(with_overrides(spec.config, {**keys, **alone}))
        facts = facts_of(member, cluster)
        return cls(family, factor, spec, member, facts.parameters, sum(facts.sample_flops()))

    def steps(self, flops: float) -> int:
        """Returns the steps that a budget pays for.

        Raises:
            ConfigError: where they say nothing.
        """
        batch = self.spec.trainer.global_batch_size
        steps = round(flops / self.sample_flops / batch)
        if steps < LEAST_STEPS:
            least = LEAST_STEPS * batch * self.sample_flops
            raise ConfigError(
                f"{flops:g} operations are {steps} steps of {self.family} with {self.parameters:,} parameters, and "
                f"at least {LEAST_STEPS} are needed",
                key="budgets",
                hint=f"use {least:.2g} or more",
            )
        return steps

    def train(self, flops: float, folder: Path, world: World) -> Point:
        """Trains it for a budget, unless that is done, and returns what it came to.

        Raises:
            StoppedError: where a signal ended it early; it goes on when it is called again.
        """
        steps = self.steps(flops)
        place = folder / "trainings" / f"{self.family}-{self.parameters}-{steps}"
        done = place / "point.json"
        if not world.share(done.exists() if world.is_main else None):
            say(world, f"{self.family}, {self.parameters:,} parameters, {steps} steps")
            loss = _trained_loss(self._spec_of(steps), place, world)
            if world.is_main:
                samples = float(steps * self.spec.trainer.global_batch_size)
                write_json(done, asdict(Point(self.parameters, samples, samples * self.sample_flops, loss)))
        advice = "remove it, and it is made anew"
        point: Point = world.share(read_json(done, Point, advice=advice) if world.is_main else None)
        return point

    def _spec_of(self, steps: int) -> RunSpec:
        overrides = {
            "trainer.max_steps": steps,
            "trainer.valid_every": steps,
            "trainer.save_every": max(1, steps // 2),
            "optim.warmup_steps": min(self.spec.optim.warmup_steps, steps // 4),
        }
        return RunSpec.build(with_overrides(self.spec.config, overrides))


def run(composition: Composition) -> CommandResult | None:
    """Trains the families, fits and checks their laws, and reports; on other ranks than the first there is no result.

    Raises:
        ConfigError: for whatever cannot work, before anything is trained.
    """
    values = composition.config
    own = {field.name for field in fields(ScalingConfig)}
    config = build(ScalingConfig, {name: value for name, value in values.items() if name in own})
    spec = RunSpec.build({n: v for n, v in values.items() if n not in own} | {"output": config.output})
    world = join(spec.trainer.device, spec.trainer.timeout_s, key="trainer.device")
    folder = Path(config.out) if config.out else _folder_of(values, spec)
    families = {OWN: spec, **{model.name: model.spec for model in build_reference_models(spec) if model.name != OWN}}
    say(world, f"{len(families)} families of {len(config.sizes)} sizes for {len(config.budgets)} budgets -> {folder}")
    members = {name: _members(name, one, config, world) for name, one in families.items()}
    with alone(folder, "out") if world.is_main else nullcontext():
        if world.is_main:
            _keep_or_check(folder, _settings(values))
        try:
            studies = {name: _study(sizes, config, folder, world) for name, sizes in members.items()}
        except StoppedError:
            text = f"stopped; the same command goes on in {folder}"
            return CommandResult({"folder": str(folder), "finished": False}, text) if world.is_main else None
        return _result(studies, config.target, folder) if world.is_main else None


class StoppedError(Exception):
    """Says that a signal ended a training early."""


def _members(family: str, spec: RunSpec, config: ScalingConfig, world: World) -> list[Member]:
    """Returns the sizes of a family; factors that are rounded to the same widths make one.

    Raises:
        ConfigError: where sizes or budgets make too few different trainings for a law.
    """
    found: dict[int, Member] = {}
    for factor in config.sizes:
        member = Member.of(family, spec, factor, config.cluster)
        same = found.setdefault(member.parameters, member)
        if same is not member:
            say(world, f"sizes {same.factor:g} and {factor:g} of {family} have the same widths and count once")
    if len(found) < LEAST:
        raise ConfigError(
            f"make only {len(found)} different sizes of {family}, whose widths are rounded, and {LEAST} are needed",
            key="sizes",
            hint="use factors farther apart, e.g. sizes=[0.5,1,2]",
        )
    for member in found.values():
        if len({member.steps(flops) for flops in config.budgets}) < LEAST:
            raise ConfigError(
                f"are fewer than {LEAST} different numbers of steps of {family} with {member.parameters:,} parameters",
                key="budgets",
                hint="use numbers farther apart, each e.g. twice the one before",
            )
    return list(found.values())


def _study(sizes: Sequence[Member], config: ScalingConfig, folder: Path, world: World) -> ScalingStudy:
    """Trains a family's members for all budgets, smallest first, fits the law, and trains what checks it."""
    points = [member.train(flops, folder, world) for flops in sorted(config.budgets) for member in sizes]
    say(world, f"fitting the law of {sizes[0].family}")
    study = ScalingStudy.fit(list(dict.fromkeys(points)))
    if config.check is None:
        return study
    flops = config.check * max(config.budgets)
    first = sizes[0]
    factor = _factor_of(sizes, study.law.best_size(flops))
    largest = Member.of(first.family, first.base, factor, config.cluster)
    return replace(study, check=largest.train(flops, folder, world))


def _result(studies: Mapping[str, ScalingStudy], target: float, folder: Path) -> CommandResult:
    families = {name: study.document(target) for name, study in studies.items()}
    write_json(folder / "scaling.json", families)
    pictures = [str(path) for path in draw_scaling(folder, studies)]
    text = f"{scaling_text(studies, target)}\n\nWritten to {folder}"
    return CommandResult({"folder": str(folder), "families": families, "pictures": pictures}, text)


def _trained_loss(spec: RunSpec, place: Path, world: World) -> float:
    folder = RunFolder(place)
    exists = world.share(folder.exists if world.is_main else None)
    session = TrainingSession.start(spec, world, folder if exists else None, path=place)
    if not session.fit():
        raise StoppedError
    rows = [row for row in session.folder.history() if row["split"] == "valid"] if world.is_main else []
    loss: float | None = world.share(rows[-1]["loss"] if rows else None)
    if loss is None:
        raise ConfigError(
            "has no validation samples, to whose losses a law could be fitted",
            key="data.splits",
            hint="e.g. {train: 0.8, valid: 0.1, test: 0.1}",
        )
    return loss


def _factor_of(members: Sequence[Member], parameters: float) -> float:
    """Returns the factor on the widths that gives about so many parameters, not far from those that were trained."""
    sizes, factors = ([math.log(getattr(m, name)) for m in members] for name in ("parameters", "factor"))
    slope, start = np.polyfit(sizes, factors, 1)
    wanted = float(np.exp(start + slope * math.log(parameters)))
    known = [member.factor for member in members]
    return min(max(wanted, min(known)), BEYOND * max(known))


def _settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns everything in a configuration that decides what a training comes to."""
    return {name: value for name, value in values.items() if name not in FREE}


def _keep_or_check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Begins a study, or sees that its trainings are those of this configuration."""
    if is_begun(folder, "out"):
        check_settings(folder, settings, "out")
    else:
        keep_settings(folder, settings)


def _folder_of(values: Mapping[str, Any], spec: RunSpec) -> Path:
    """Returns the folder of a configuration's study: the same for the same command."""
    text = json.dumps(_settings(values), sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return Path(str(values["runs_dir"])) / "scaling" / f"{spec.domain.name}-{digest}"
