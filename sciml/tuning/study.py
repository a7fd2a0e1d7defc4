"""A study of strategies: what was tried, in a folder, so that it can go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from sciml.core.study_folder import check_settings, is_begun, keep_settings
from sciml.tuning.sampler import FeasibleSampler, distributions, ended, quiet, tried
from sciml.tuning.space import Choice, Choices
from sciml.tuning.trial import FAILED, MEASURED, Result

CHOICES, JOURNAL = "choices.json", "journal.log"
Measure = Callable[[Choice, int], Result]
"""Runs a strategy as the trial of a number."""


class TuningStudy:
    """Keeps trials of strategies in Optuna's journal: a file to which lines are only added, so that nothing is lost.

    Args:
        folder: with ``choices.json``.
        build_sampler: of the strategies to choose from.
    """

    def __init__(self, folder: Path, build_sampler: Callable[[Choices], FeasibleSampler]) -> None:
        self.folder, self.choices = folder, Choices.read(folder / CHOICES)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with quiet():
            self.optuna = optuna.create_study(
                storage=_journal(folder / JOURNAL),
                study_name="strategies",
                sampler=build_sampler(self.choices),
                load_if_exists=True,
            )
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._drop(trial.number)  # an earlier start was killed in it

    def rows(self) -> list[dict[str, Any]]:
        """Returns for each trial with a result, in their order, the strategy, what was predicted, and what was
        measured.
        """
        results = [(self.choices.at(trial.params), trial.user_attrs["result"]) for trial in ended(self.optuna)]
        return [{"trial": n, **asdict(one), "line": one.line, **result} for n, (one, result) in enumerate(results, 1)]

    def go_on(self, trials: int, measure: Measure) -> Iterator[dict[str, Any]]:
        """Runs trials until the study has the wanted number, or nothing is left to try; yields the row of each.

        Where it is interrupted the trial in hand is as if it had not been.
        """
        while (done := len(tried(self.optuna, self.choices))) < min(trials, len(self.choices)):
            trial = self.optuna.ask(distributions(self.choices))
            try:
                result = measure(self.choices.at(trial.params), done + 1)
            except BaseException:
                self._drop(trial.number)
                raise
            trial.set_user_attr("result", asdict(result))
            if result.state == MEASURED:
                self.optuna.tell(trial, result.step_s)
            else:
                assert result.state == FAILED
                self.optuna.tell(trial, state=TrialState.PRUNED)
            yield self.rows()[-1]

    def _drop(self, number: int) -> None:
        self.optuna.tell(number, state=TrialState.FAIL)


def _journal(path: Path) -> optuna.storages.JournalStorage:
    try:
        from optuna.storages.journal import JournalFileBackend
    except ImportError:  # before Optuna 4
        from optuna.storages import JournalFileStorage as JournalFileBackend
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def open_folder(folder: Path, settings: Mapping[str, Any], choices: Callable[[], Choices]) -> None:
    """Begins a study in a folder, or sees that the one that is there is of the same configuration.

    Args:
        settings: all that decides what a trial measures; JSON.
        choices: makes what to choose from; not called where that is there already.

    Raises:
        ConfigError: naming the first key that differs.
    """
    if (folder / CHOICES).exists() and is_begun(folder, "study"):
        check_settings(folder, settings, "study")
        return
    is_begun(folder, "study")  # one that ended before its choices were written begins anew
    found = choices()
    keep_settings(folder, settings)
    found.write(folder / CHOICES)
