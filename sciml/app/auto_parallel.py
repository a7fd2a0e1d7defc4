"""``parallel=auto``: the planner's best for the devices that a training finds itself on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from sciml.app.plan import PlanConfig, constraints_of, facts_of, nothing_fits
from sciml.core.errors import ConfigError, RunError
from sciml.distributed.launcher import launched, without_launcher
from sciml.distributed.world import World
from sciml.planning.cluster_here import cluster_here
from sciml.planning.search import Search
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.run.spec import RunSpec

TIMEOUT_S = 600
MARGIN = 0.1
"""Share of a device's memory that is left free: twice what a plan leaves, since nobody looks before it runs."""


def with_best_parallel(config: Mapping[str, Any], overrides: Mapping[str, Any], world: World) -> dict[str, Any]:
    """Returns a configuration whose ``parallel`` is decided.

    The first rank plans, in a process that has met no others, and tells the rest. Degrees, micro-batch and
    recomputation that are given are kept; the precision is the configured one, so that what is learned does not
    depend on devices.

    Raises:
        ConfigError: on all ranks, where nothing fits.
    """
    parallel = dict(config["parallel"])
    if not parallel.pop("auto", False):
        return dict(config)
    config = {**config, "parallel": parallel}
    answer = world.share(_planned(config, overrides, world) if world.is_main else None)
    if "message" in answer:
        raise ConfigError(answer["message"], key=answer["key"], hint=answer["hint"])
    if world.is_main:
        print(f"parallel=auto: {answer.pop('text')}", file=sys.stderr, flush=True)
    return {**config, **{group: {**config[group], **answer[group]} for group in ("parallel", "trainer", "model")}}


def _planned(config: Mapping[str, Any], overrides: Mapping[str, Any], world: World) -> dict[str, Any]:
    program = f"from {__name__} import main; main()"
    numbers = {"devices": world.size, "local": local_size(world)}
    request = json.dumps({"config": config, "overrides": overrides, **numbers}, default=str)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=request,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=without_launcher(),
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"no plan within {TIMEOUT_S} s; choose parallel by hand") from None
    if done.returncode:
        raise RunError(f"the plan failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Reads a configuration and a number of devices, and prints what is best, or why nothing is."""
    request = json.load(sys.stdin)
    try:
        answer = best(request["config"], request["overrides"], request["devices"], request["local"])
    except ConfigError as error:
        answer = {"message": error.message, "key": error.key, "hint": error.hint}
    print(json.dumps(answer))


def local_size(world: World) -> int:
    """Returns the number of a run's processes on this node, as its launcher says it; all where none does."""
    return min(launched().local_size or world.size, world.size)


def best(
    run_config: Mapping[str, Any], overrides: Mapping[str, Any], devices: int, local: int | None = None
) -> dict[str, Any]:
    """Returns the keys of ``parallel``, ``trainer`` and ``model`` of the fastest strategy that fits.

    Args:
        local: processes on this node.

    Raises:
        ConfigError: where nothing fits, or divides the devices.
    """
    experiment = RunSpec.build(run_config)
    trainer = experiment.trainer
    cluster = cluster_here(devices, trainer.device, trainer.num_threads or 1, local)
    config = PlanConfig(cluster, devices, margin=MARGIN)
    given = overrides if trainer.precision == "auto" else {**overrides, "trainer.precision": trainer.precision}
    constraints = constraints_of(config, experiment, given)
    training = TrainingSpec.of(trainer, experiment.optim)
    search = Search(facts_of(experiment, cluster), cluster, training, constraints, config.efficiency, config.margin)
    candidate = search.fastest(devices)
    if candidate is None:
        raise nothing_fits(search.plan(devices), search, config)
    return chosen(candidate.strategy, experiment.model)


def chosen(strategy: Strategy, model: Any) -> dict[str, Any]:
    """Returns a strategy as keys of a configuration, by group; engine and precision stay as they are."""
    groups: dict[str, Any] = {"parallel": {}, "trainer": {}, "model": {}}
    for key, value in strategy.keys().items():
        group, _, name = key.partition(".")
        if group == "parallel" or name == "micro_batch_size" or (group == "model" and hasattr(model, name)):
            groups[group][name] = value
    text = f"{strategy.text}, micro-batches of {strategy.micro_batch}, recompute {strategy.recompute}"
    return {**groups, "text": text}
