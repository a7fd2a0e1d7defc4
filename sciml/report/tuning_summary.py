"""A study of strategies in words and numbers: tables for people, and a document for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from sciml.report.tables import Column, count, facts, render, table
from sciml.report.tuning import measured, spearman
from sciml.tuning.space import Choice, Choices
from sciml.tuning.trial import MEASURED

ROWS = 10
MILLI, GIB = 1e3, 2**30


def trial_line(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], total: int) -> str:
    """Describes a trial as it ends."""
    best = min((r["step_s"] for r in measured(rows)), default=None)
    if row["state"] == MEASURED:
        result = f"{row['step_s'] * MILLI:.4g} ms a step, predicted {row['predicted_s'] * MILLI:.4g}"
    else:
        result = f"failed: {row['reason']}"
    so_far = "" if best is None else f"; best {best * MILLI:.4g} ms"
    return f"trial {row['trial']}/{total}  {row['line']}: {result}{so_far}"


def study_document(
    rows: Sequence[Mapping[str, Any]],
    shares: Mapping[str, float],
    choices: Choices,
    devices: int,
    command: Callable[[Choice], str],
) -> dict[str, Any]:
    """Makes the study for programs; bytes and seconds without any prefix."""
    ranked = sorted(measured(rows), key=lambda row: row["step_s"])
    document: dict[str, Any] = {
        "devices": devices,
        "strategies": len(choices),
        "trials": list(rows),
        "measured": len(ranked),
        "failed": len(rows) - len(ranked),
        "best": None,
        "spearman": spearman([row["predicted_s"] for row in ranked], [row["step_s"] for row in ranked]),
        "importance": dict(shares),
        "importance_by": "PED-ANOVA",
    }
    if ranked:
        best = ranked[0]
        planned = min(ranked, key=lambda row: row["predicted_s"])
        axes = {axis: best["axes"][axis] for axis in choices.values}
        document["best"] = {**best, "command": command(choices.at(axes))}
        document["planned_behind"] = planned["step_s"] / best["step_s"] - 1
    return document


def study_text(document: Mapping[str, Any]) -> str:
    """Writes the study for people."""
    best = document["best"]
    trials = f"{document['measured']} of {count(document['strategies'], 'strategy', 'strategies')} measured, "
    trials += f"{document['failed']} failed"
    if best is None:
        return render(trials, *_failures(document["trials"]))
    correlation, importance = document["spearman"], document["importance"]
    shares = ", ".join(f"{axis} {share:.0%}" for axis, share in importance.items() if share >= 0.005)
    figures = {
        "Step": f"{best['step_s'] * MILLI:.4g} ms, {best['samples_per_s']:,.4g} samples/s",
        "Trials": trials,
        "Plan": None
        if correlation is None
        else f"predicted and measured step times have Spearman's correlation {correlation:.2f}; "
        f"the plan's first choice takes {document['planned_behind']:.1%} longer than the best",
        "Importance": f"{shares} (PED-ANOVA)" if importance else None,
    }
    return render(
        f"Best strategy: {best['line']}",
        f"  {best['command']}",
        "",
        facts(figures),
        "",
        _ranking(document["trials"]),
        *_failures(document["trials"]),
    )


def _ranking(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    columns: list[str | Column] = [
        Column("strategy", is_folded=False),
        Column("micro", True),
        "recompute",
        "type",
        Column("ms/step", True),
        Column("predicted", True),
        Column("samples/s", True),
        Column("GiB", True),
        Column("trial", True),
    ]
    cells = [
        (
            row["text"],
            row["axes"]["micro_batch"],
            row["axes"]["recompute"],
            row["axes"]["precision"],
            f"{row['step_s'] * MILLI:.4g}",
            f"{row['predicted_s'] * MILLI:.4g}",
            f"{row['samples_per_s']:.4g}",
            None if row["peak_bytes"] is None else f"{row['peak_bytes'] / GIB:.2f}",
            row["trial"],
        )
        for row in sorted(measured(rows), key=lambda row: row["step_s"])[:ROWS]
    ]
    return table(columns, cells)


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[RenderableType | str]:
    failed = [(row["trial"], row["line"], row["reason"]) for row in rows if row["state"] != MEASURED]
    return ["", table([Column("trial", True), "failed strategy", "reason"], failed)] if failed else []
