"""Runs beside one another, from their files alone: what each is, how far it is, and how good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml.core.config import flat
from sciml.core.errors import SciMLError
from sciml.domain.loading import load_domain
from sciml.domain.score import Metric
from sciml.report.scores import Scores
from sciml.report.tables import Column, render, table
from sciml.run.folder import RunFolder, no_run
from sciml.run.lock import living_holder
from sciml.training.checkpoint import CheckpointStore

SHOWN_VARIABLES = 4
_FREE = ("run", "runs_dir", "resume", "output")
"""Keys in which runs always differ."""


@dataclass(frozen=True)
class RunSummary:
    """Says what is known of a run.

    Attributes:
        path: its folder.
        domain: name of it.
        model: kind of its model, and its size.
        step, max_steps: how far it is.
        state: ``training``, ``scored``, ``trained``, ``stopped``, ``begun``, ``exported``, or what is wrong with it.
        begun: when, as its record says.
        metric: of the scores; None where nothing was scored.
        values: main score of each variable.
        against_best: geometric mean over variables of its error to that of the strongest baseline of each; None where
            that cannot be said.
        config: leaves of its configuration by dotted key.
    """

    path: Path
    domain: str = ""
    model: str = ""
    step: int = 0
    max_steps: int = 0
    state: str = ""
    begun: str = ""
    metric: Metric | None = None
    values: Mapping[str, float] | None = None
    against_best: float | None = None
    config: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> RunSummary:
        """Reads a run; what is damaged is said, and does not end a list of many."""
        try:
            return cls._read(folder)
        except SciMLError as error:
            return cls(folder.path, state=f"damaged: {error}")

    @classmethod
    def _read(cls, folder: RunFolder) -> RunSummary:
        record = folder.record
        config = record["config"]
        scores = folder.scores()
        steps = CheckpointStore(folder.checkpoints).steps()
        max_steps = int((config.get("trainer") or {}).get("max_steps") or 0)
        found = Scores.in_domain(scores, load_domain(config["domain"])) if scores else None
        lines = found.main_lines if found is not None else []
        return cls(
            path=folder.path,
            domain=str(record["domain"]),
            model=str((config.get("model") or {}).get("kind", "")),
            step=max(steps, default=0),
            max_steps=max_steps,
            state=_state(folder, max(steps, default=0), max_steps, bool(scores)),
            begun=str(record.get("provenance", {}).get("time", "")),
            metric=lines[0].metric if lines else None,
            values={line.variable: line.values["model"] for line in lines},
            against_best=_against_best(lines),
            config=flat({name: value for name, value in config.items() if name not in _FREE}),
        )


def _state(folder: RunFolder, step: int, max_steps: int, scored: bool) -> str:
    if folder.is_exported:
        return "exported"
    if living_holder(folder.path) is not None:
        return "training"
    if not step:
        return "begun"
    return "stopped" if step < max_steps else "scored" if scored else "trained"


def _against_best(lines: Sequence[Any]) -> float | None:
    ratios = [1 - line.gain_over(line.best_baseline) for line in lines if line.best_baseline is not None]
    if not ratios or min(ratios) <= 0 or not all(map(math.isfinite, ratios)):
        return None
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def runs_under(runs_dir: str, domain: str | None = None) -> list[RunSummary]:
    """Returns the runs of a folder, the newest first.

    Raises:
        ConfigError: there is none.
    """
    files = sorted(Path(runs_dir).glob(f"{domain or '*'}/*/run.json"))
    if not files:
        raise no_run(runs_dir, domain, "runs_dir")
    return sorted((RunSummary.of(RunFolder(file.parent)) for file in files), key=lambda run: run.begun, reverse=True)


def list_text(runs: Sequence[RunSummary]) -> str:
    """Returns a table of runs, a line each."""
    columns: list[str | Column] = [
        "run",
        "begun",
        "model",
        Column("step", True),
        "state",
        Column("to best baseline", True),
        "score",
    ]
    rows = [
        [
            f"{run.path.parent.name}/{run.path.name}",
            run.begun[:16].replace("T", " "),
            run.model,
            f"{run.step:,}" + (f" of {run.max_steps:,}" if run.step < run.max_steps else "") if run.max_steps else "",
            run.state,
            None if run.against_best is None else f"{run.against_best:.2f}",
            _score(run),
        ]
        for run in runs
    ]
    return render(table(columns, rows))


def _score(run: RunSummary) -> str:
    if not run.values or run.metric is None:
        return ""
    some = [f"{name} {value:.3g}" for name, value in list(run.values.items())[:SHOWN_VARIABLES]]
    return f"{run.metric.label}: {', '.join(some)}" + (", ..." if len(run.values) > SHOWN_VARIABLES else "")


def differences(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Returns the keys in which runs differ, with the value of each."""
    configs = [run.config or {} for run in runs]
    keys = sorted({key for config in configs for key in config})
    found = {key: [config.get(key) for config in configs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def side_by_side(runs: Sequence[RunSummary], names: Sequence[str] | None = None) -> str:
    """Returns runs in columns: the keys in which they differ, then their scores.

    Args:
        names: of the columns; by default of the runs' folders.
    """
    names = names or [run.path.name for run in runs]
    keys = [[key, *(_shown(run, key) for run in runs)] for key in differences(runs)]
    variables = list(dict.fromkeys(name for run in runs for name in run.values or {}))
    scores = [[name, *(_number((run.values or {}).get(name)) for run in runs)] for name in variables]
    metrics = list(dict.fromkeys(run.metric.label for run in runs if run.metric is not None))
    against = ["to best baseline", *(_number(run.against_best) for run in runs)]
    parts: list[Any] = []
    if keys:
        parts += [table(["key", *names], keys), ""]
    heads: list[str | Column] = [" or ".join(metrics) or "not scored", *(Column(name, True) for name in names)]
    return render(*parts, table(heads, [*scores, against, ["state", *(run.state for run in runs)]]))


def _shown(run: RunSummary, key: str) -> str:
    """Returns the value of a key; nothing where the run has no such key."""
    config = run.config or {}
    return "" if key not in config else "null" if config[key] is None else str(config[key])


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"
