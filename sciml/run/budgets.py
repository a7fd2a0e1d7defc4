"""Budgets: models are trained for as many steps as cost a number of seconds, or as much as the run's own training.

``trainer.budget_s`` is the budget of the run's own model, ``reference_models.NAME.budget`` that of a reference model.
Steps are measured once, when a run begins. The numbers of steps are then keys like any others of the configuration
that ``run.json`` keeps, so that a resumed run, further seeds and comparisons find them there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World, use_threads
from sciml.run.costs import Step, measure_in_turn, training_step
from sciml.run.degrees import check_degrees
from sciml.run.folder import RunFolder
from sciml.run.reference_models import OWN, Budget, ReferenceModel, budget_of, build_reference_models
from sciml.run.session import load_data, read_source, say
from sciml.run.spec import RunSpec, follow_data, with_overrides

ROUNDS = 9
LEAVE_OUT = "leave one of them out"


def with_steps(
    config: Mapping[str, Any], typed: Mapping[str, Any], folder: RunFolder | None, world: World
) -> dict[str, Any]:
    """Returns a configuration in which the steps of every model with a budget are decided.

    Args:
        config: of the run, whose ``parallel`` is decided.
        typed: what was typed of keys within groups, by dotted key.
        folder: the run that continues, which keeps the steps that it began with; None measures them.

    Raises:
        ConfigError: where a budget is no budget, is given with a number of steps, or differs from that of the run.
    """
    spec = RunSpec.build(config)
    if folder is None:
        config = _without_misfits(spec, world)
        spec = RunSpec.build(config)
    models = [model for model in build_reference_models(spec) if model.name != OWN and model.number == 0]
    if folder is not None:
        return _as_kept(spec, typed, models, folder.record["config"], world)
    entries, budget_s = spec.options.reference_models, spec.trainer.budget_s
    limited = [model for model in models if budget_of(model.name, entries[model.name]) is not None]
    _check_steps(spec, typed, limited)
    if budget_s is None and not limited:
        return dict(config)
    costs = _measure({OWN: spec, **{model.name: model.spec for model in limited}}, world)
    overrides: dict[str, Any] = {}
    own_steps = spec.trainer.max_steps
    if budget_s is not None:
        own_steps = overrides["trainer.max_steps"] = _steps(budget_s, costs[OWN])
        say(world, f"the run's model: {own_steps} steps, which cost {budget_s:g} {_unit(world)}")
    overrides |= _steps_beside(spec, limited, own_steps, costs, world)
    return with_overrides(config, overrides)


def _steps_beside(
    spec: RunSpec, models: Sequence[ReferenceModel], own_steps: int, costs: Mapping[str, float], world: World
) -> dict[str, int]:
    """Returns the steps that reference models' budgets pay for, by dotted key, and says them.

    Args:
        models: each with a budget.
        own_steps: of the run's own model.
        costs: seconds of a step by model.
    """
    overrides: dict[str, int] = {}
    for model in models:
        budget = budget_of(model.name, spec.options.reference_models[model.name])
        assert budget is not None
        own_s = own_steps * costs[OWN]
        seconds = budget.beside(own_s)
        steps = overrides[f"reference_models.{model.name}.trainer.max_steps"] = _steps(seconds, costs[model.name])
        is_equal = budget.seconds == "equal" and seconds == own_s
        cost = f"as much as the run's {own_steps}" if is_equal else f"{seconds:g} {_unit(world)}"
        say(world, f"reference model {model.name}: {steps} steps, which cost {cost}")
    return overrides


def _unit(world: World) -> str:
    return "CPU s" if world.device.type == "cpu" else "s"


def _without_misfits(spec: RunSpec, world: World) -> Mapping[str, Any]:
    """Returns the configuration without the reference models of another kind whose batch these ranks cannot share.

    A run that is cut by tensor or pipeline parallelism may have more ranks than samples in a batch, and a model that
    knows only data parallelism then has no place beside it.
    """
    kept = dict(spec.options.reference_models)
    for model in build_reference_models(spec):
        if model.name not in kept or model.spec.model.kind == spec.model.kind:
            continue
        try:
            check_degrees(model.spec, world.size)
        except ConfigError as error:
            say(world, f"reference model {model.name} is left out: {error}")
            del kept[model.name]
    return {**spec.config, "reference_models": kept}


def _steps(seconds: float, step_s: float) -> int:
    return max(1, round(seconds / step_s))


def _check_steps(spec: RunSpec, typed: Mapping[str, Any], limited: Sequence[ReferenceModel]) -> None:
    if spec.trainer.budget_s is not None and "trainer.max_steps" in typed:
        raise ConfigError("cannot be given together with trainer.max_steps", key="trainer.budget_s", hint=LEAVE_OUT)
    for model in limited:
        key = f"reference_models.{model.name}"
        if "max_steps" in spec.options.reference_models[model.name].get("trainer", {}):
            raise ConfigError(
                f"cannot be given together with {key}.trainer.max_steps", key=f"{key}.budget", hint=LEAVE_OUT
            )


def _measure(specs: Mapping[str, RunSpec], world: World) -> dict[str, float]:
    """Measures a training step of each model on all ranks together; the seconds are those of the first rank."""
    use_threads(specs[OWN].trainer.num_threads, "trainer.num_threads")
    steps: dict[str, Step] = {}
    for name, open_spec in specs.items():
        source = read_source(open_spec, None)
        spec, _ = follow_data(open_spec, None if source is None else source.spec)
        mesh = Mesh(world, check_degrees(spec, world.size))
        splits = load_data(spec, None, source)
        task = spec.domain.task(spec, splits).to(world.device)
        step = training_step(spec, task, splits, mesh, ROUNDS)
        steps[name] = _with_loading(step) if world.device.type == "cpu" else step
    return world.share(measure_in_turn(steps, world, ROUNDS))


def _with_loading(step: Step) -> Step:
    """Returns a step whose batch is loaded while it is measured: on a CPU that takes its seconds from the training, and
    on an accelerator it goes on beside.
    """
    return lambda number: lambda: step(number)()


def _as_kept(
    spec: RunSpec, typed: Mapping[str, Any], models: Sequence[ReferenceModel], kept: Mapping[str, Any], world: World
) -> dict[str, Any]:
    """Returns the configuration of a run that continues with the steps that were decided when it began.

    Where its own model is to be trained for another number of steps, equal budgets are other ones, too.
    """
    _check_same("trainer.budget_s", spec.trainer.budget_s, kept["trainer"].get("budget_s"))
    own_steps, began = spec.trainer.max_steps, kept["trainer"]["max_steps"]
    if spec.trainer.budget_s is not None and "trainer.max_steps" not in typed:
        own_steps = began  # also where trainer= was chosen anew, whose steps no budget has decided
    overrides, changed = {"trainer.max_steps": own_steps}, []
    for model in models:
        entry, before = spec.options.reference_models[model.name], kept.get("reference_models", {}).get(model.name, {})
        budget, key = budget_of(model.name, entry), f"reference_models.{model.name}.trainer.max_steps"
        _check_same(f"reference_models.{model.name}.budget", budget, budget_of(model.name, before))
        if budget is None or key in typed:
            continue
        overrides[key] = before["trainer"]["max_steps"]
        if budget.seconds == "equal" and own_steps != began:
            changed.append(model)
    if changed:
        costs = _measure({OWN: spec, **{model.name: model.spec for model in changed}}, world)
        overrides |= _steps_beside(spec, changed, own_steps, costs, world)
    return with_overrides(spec.config, overrides)


def _check_same(key: str, budget: float | Budget | None, before: float | Budget | None) -> None:
    if budget != before:
        was = "none" if before is None else before.seconds if isinstance(before, Budget) else before
        raise ConfigError(f"is decided when a run begins, and this one has {was}", key=key, hint="begin a new run")
