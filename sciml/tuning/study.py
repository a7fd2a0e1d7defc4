"""A study of strategies: what was tried, in a folder, so that it can go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from typing_extensions import TypedDict

from sciml.core.config import flat
from sciml.core.errors import ConfigError
from sciml.core.files import make_folder, read_json, write_json
from sciml.core.lock import exclusive
from sciml.core.provenance import provenance
from sciml.tuning.sampler import FeasibleSampler, distributions, ended, quiet, tried
from sciml.tuning.space import Choice, Choices
from sciml.tuning.trial import FAILED, MEASURED, Result

SETTINGS, CHOICES, JOURNAL = "settings.json", "choices.json", "journal.log"
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


class _Settings(TypedDict):
    config: dict[str, Any]


def open_folder(folder: Path, settings: Mapping[str, Any], choices: Callable[[], Choices]) -> None:
    """Makes a study's folder, or sees that the one that is there is of the same configuration.

    Args:
        settings: all that decides what a trial measures; JSON.
        choices: makes what to choose from; not called where that is there already.

    Raises:
        ConfigError: naming the first key that differs.
    """
    normalized = json.loads(json.dumps(settings, default=str))
    if not (folder / CHOICES).exists():
        if folder.exists() and any(path.name != SETTINGS for path in folder.iterdir()):
            raise ConfigError(f"{folder} is there and holds no study", key="study", hint="name another folder")
        found = choices()
        write_json(folder / SETTINGS, {"config": normalized, "provenance": provenance()})
        found.write(folder / CHOICES)
        return
    kept: _Settings = read_json(folder / SETTINGS, _Settings, advice="name another folder with study=")
    there, here = flat(kept["config"]), flat(normalized)
    key = next((key for key in sorted({*there, *here}) if there.get(key) != here.get(key)), None)
    if key is not None:
        raise ConfigError(
            f"the study in {folder} has {key}={there.get(key)}, not {here.get(key)}",
            key="study",
            hint="name another folder, or leave study out",
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a study's folder; two at once would measure one another.

    Raises:
        ConfigError: where another process holds it.
    """
    make_folder(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(folder, wait=False))
        except BlockingIOError:
            raise ConfigError(
                f"another process works on the study in {folder}", key="study", hint="wait for it, or name another"
            ) from None
        try:
            yield
        finally:
            if not (folder / CHOICES).exists():  # nothing came of it
                with suppress(OSError):
                    folder.rmdir()
