"""Proposes what to try next by Optuna's TPE or DeepHyper's Bayesian optimization, restricted to what can be run."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from sciml.core.errors import MissingExtraError
from sciml.tuning.space import Choice, Choices

SAMPLERS = ("optuna", "deephyper")
FIRST = 5
"""How many trials are the plan's own best, before anything is learned from trials."""
Propose = Callable[[optuna.Study, FrozenTrial, dict[str, BaseDistribution]], Mapping[str, Any]]


class FeasibleSampler(optuna.samplers.BaseSampler):
    """Proposes the strategy nearest to another sampler's draw among those that can be run and were not yet.

    Axes depend on one another (no schedule without a pipeline; micro-batches divide a rank's share), so most draws of
    independent axes cannot be run. Were they pruned, most of a sampler's few draws would be lost, and it would learn
    which axes go together and not which are fast; were strategies numbered, it could not tell one axis from another.

    Args:
        propose: draws values of all axes; nothing where it has learned nothing yet.
    """

    def __init__(self, choices: Choices, propose: Propose) -> None:
        self.choices, self.propose = choices, propose

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return distributions(self.choices)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        done = tried(study, self.choices)
        planned = next((choice for choice in self.choices.first(FIRST) if choice not in done), None)
        chosen = planned or self.choices.nearest(self.propose(study, trial, search_space), done)
        return {axis: chosen.axes[axis] for axis in search_space}

    def sample_independent(self, *unused: Any) -> Any:
        raise AssertionError("all axes are drawn together")


def distributions(choices: Choices) -> dict[str, BaseDistribution]:
    """Returns a distribution for Optuna of each axis that has several values."""
    return {axis: CategoricalDistribution(values) for axis, values in choices.values.items()}


def tried(study: optuna.Study, choices: Choices) -> list[Choice]:
    """Returns the choices whose trials have ended, in whatever way."""
    return [choices.at(trial.params) for trial in ended(study)]


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials with a result. One that failed is Optuna's pruned: TPE learns from those, and not from
    its failed ones.
    """
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def build_sampler(name: str, choices: Choices, seed: int) -> FeasibleSampler:
    """Builds a sampler by name, whose draws depend on the seed and on what was tried, and on nothing else.

    Raises:
        MissingExtraError: where DeepHyper is wanted and not installed.
    """
    if name == "optuna":
        return FeasibleSampler(choices, _tpe(seed))
    check_sampler(name)
    return FeasibleSampler(choices, _deephyper(seed))


def check_sampler(name: str) -> None:
    """Refuses DeepHyper where it is not installed."""
    if name == "deephyper":
        try:
            import deephyper.hpo  # noqa: F401
        except ImportError:
            raise MissingExtraError("deephyper", extra="deephyper", purpose="for sampler=deephyper") from None


def _tpe(seed: int) -> Propose:
    """Proposes by tree-structured Parzen estimators over all axes together.

    Source: Bergstra et al. (2011), https://papers.nips.cc/paper/4443; Falkner et al. (2018),
    https://doi.org/10.48550/arXiv.1807.01774, for axes together.
    """

    def propose(
        study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Mapping[str, Any]:
        with quiet():  # anew each time, so that a study that goes on draws as if it had never stopped
            sampler = optuna.samplers.TPESampler(
                seed=seed + trial.number, multivariate=True, n_startup_trials=min(FIRST, 2)
            )
            return sampler.sample_relative(study, trial, search_space)

    return propose


def _deephyper(seed: int) -> Propose:
    """Proposes by Bayesian optimization with a forest of trees and an upper confidence bound, as in DeepHyper.

    Source: Balaprakash et al. (2018), https://doi.org/10.1109/HiPC.2018.00014.
    """

    def propose(
        study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Mapping[str, Any]:
        from deephyper.hpo import CBO, HpProblem

        problem = HpProblem()
        for axis, distribution in search_space.items():
            assert isinstance(distribution, CategoricalDistribution)
            problem.add_hyperparameter([str(value) for value in distribution.choices], axis)
        observations = [({axis: str(t.params[axis]) for axis in search_space}, _objective(t)) for t in ended(study)]
        with quiet(), tempfile.TemporaryDirectory() as folder:
            search = CBO(
                problem,
                random_state=seed + trial.number,
                log_dir=folder,
                n_initial_points=min(FIRST, 2),
                checkpoint_history_to_csv=False,
            )
            search.tell(observations)
            drawn = search.ask(1)[0]
        return {axis: _value(search_space[axis], str(drawn[axis])) for axis in search_space}

    return propose


def _objective(trial: FrozenTrial) -> float | str:
    """Returns what DeepHyper maximizes; an F is a failure."""
    return -trial.value if trial.value is not None else "F"


def _value(distribution: BaseDistribution, text: str) -> Any:
    assert isinstance(distribution, CategoricalDistribution)
    return next(value for value in distribution.choices if str(value) == text)


class quiet(warnings.catch_warnings):  # noqa: N801
    """Silences the samplers' remarks that parts of them are experimental."""

    def __enter__(self) -> Any:
        found = super().__enter__()
        warnings.simplefilter("ignore")
        return found


def importance(study: optuna.Study, axes: Sequence[str]) -> dict[str, float]:
    """Returns how much each axis decides whether a strategy is among the fast ones of those measured, as shares of 1.

    PED-ANOVA: how far the values of the fastest trials, at least five where there are twice as many, differ from those
    of all. It needs no further package, as fANOVA would.

    Source: Watanabe et al. (2023), https://doi.org/10.48550/arXiv.2304.10255.

    Returns:
        Nothing where fewer than four trials were measured, or one axis alone has several values in them.
    """
    measured = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    moved = [axis for axis in axes if len({trial.params[axis] for trial in measured}) > 1]
    if len(measured) < 4 or not moved:
        return {}
    share = min(0.5, max(0.1, 5 / len(measured)))
    with quiet():
        try:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
        except TypeError:  # before Optuna 4.7
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(baseline_quantile=share)
        importances = optuna.importance.get_param_importances(study, evaluator=evaluator, params=moved)
    return {
        axis: float(importances.get(axis, 0.0)) for axis in sorted(axes, key=lambda axis: -importances.get(axis, 0.0))
    }
