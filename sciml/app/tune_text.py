"""A study of strategies in words and numbers: for people, and as a document for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sciml.report.tuning import measured, spearman
from sciml.tuning.space import Choice, Choices
from sciml.tuning.trial import MEASURED

ROWS = 10
MILLI, GIB = 1e3, 2**30


def row_text(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], total: int) -> str:
    """A trial as it ends."""
    best = min((r["step_s"] for r in measured(rows)), default=None)
    if row["state"] == MEASURED:
        what = f"{row['step_s'] * MILLI:.4g} ms a step, predicted {row['predicted_s'] * MILLI:.4g}"
    else:
        what = f"failed: {row['reason']}"
    so_far = "" if best is None else f"; best {best * MILLI:.4g} ms"
    return f"trial {row['trial']}/{total}  {row['line']}: {what}{so_far}"


def document_of(
    rows: Sequence[Mapping[str, Any]],
    shares: Mapping[str, float],
    choices: Choices,
    devices: int,
    command: Callable[[Choice], str],
) -> dict[str, Any]:
    """The study for programs; bytes and seconds without any prefix."""
    ranked = sorted(measured(rows), key=lambda row: row["step_s"])
    found: dict[str, Any] = {
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
        found["best"] = {**best, "command": command(choices.at(axes))}
        found["planned_behind"] = planned["step_s"] / best["step_s"] - 1
    return found


def study_text(document: Mapping[str, Any]) -> str:
    """The study for people."""
    best = document["best"]
    head = f"{document['measured']} of {document['strategies']} strategies measured, {document['failed']} failed"
    if best is None:
        return "\n".join([head, *_failures(document["trials"])])
    lines = [
        f"best        {best['line']}",
        f"            {best['step_s'] * MILLI:.4g} ms a step, {best['samples_per_s']:,.4g} samples/s",
        f"            {best['command']}",
        f"studied     {head}",
    ]
    if document["spearman"] is not None:
        lines.append(
            f"plan        Spearman's correlation of predicted and measured step times {document['spearman']:.2f}; what "
            f"the plan put first takes {document['planned_behind']:.1%} longer than the best"
        )
    if document["importance"]:
        told = ", ".join(f"{axis} {share:.0%}" for axis, share in document["importance"].items() if share >= 0.005)
        lines.append(f"importance  {told} (PED-ANOVA)")
    return "\n".join([*lines, "", *_table(document["trials"]), *_failures(document["trials"])])


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    ranked = sorted(measured(rows), key=lambda row: row["step_s"])[:ROWS]
    width = max(8, *(len(row["text"]) for row in ranked))
    lines = [
        f"{'strategy':<{width}}  {'micro':>5}  {'recompute':<9}  {'type':<4}  {'ms/step':>8}  {'predicted':>9}  "
        f"{'samples/s':>9}  {'GiB':>5}  trial"
    ]
    for row in ranked:
        axes, peak = row["axes"], row["peak_bytes"]
        room = "-" if peak is None else f"{peak / GIB:.2f}"
        lines.append(
            f"{row['text']:<{width}}  {axes['micro_batch']:>5}  {axes['recompute']:<9}  {axes['precision']:<4}  "
            f"{row['step_s'] * MILLI:>8.4g}  {row['predicted_s'] * MILLI:>9.4g}  {row['samples_per_s']:>9.4g}  "
            f"{room:>5}  {row['trial']}"
        )
    return lines


def _failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    failed = [row for row in rows if row["state"] != MEASURED]
    return [f"failed      trial {row['trial']}, {row['line']}: {row['reason']}" for row in failed]
