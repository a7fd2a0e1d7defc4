"""Describes a model in a few lines that nobody has to look up: its data, size, training and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sciml.domain.protocol import RunResult
from sciml.report.scores import Scores, headline
from sciml.report.style import MODEL, label_of
from sciml.training.checkpoint import CheckpointStore, tensor_shapes
from sciml.training.checkpoint_layout import MANIFEST
from sciml.training.pace import seconds_of

MOST_NAMES = 12
FEW_SAMPLES = 20
TIME = "Time in training steps"


@dataclass(frozen=True)
class ModelCard:
    """Holds facts in order, and limits as sentences."""

    facts: Mapping[str, str]
    limits: Sequence[str]


def model_card(result: RunResult) -> ModelCard:
    """Returns the card of a run, from its files alone; what is not known is left out, never guessed."""
    config, scores = result.record.get("config", {}), Scores.of(result)
    facts = {
        "Domain": str(result.record.get("domain", "")),
        "Model": _model(config.get("model") or {}),
        "Parameters": _parameters(result),
        "Data": str(result.schema.get("title", "")),
        "Data path": str((config.get("data") or {}).get("path") or ""),
        "Samples": ", ".join(f"{name} {count:,}" for name, count in (result.record.get("samples") or {}).items()),
        "Predicts": _names([line.variable for line in scores.main_lines]),
        "Scored lead times": _names([scores.time_text(hours) for hours in scores.lead_times()]),
        **{name: text for name, text in training_facts(result).items() if name in ("Training steps", TIME)},
    }
    return ModelCard({name: text for name, text in facts.items() if text}, _limits(result))


def training_facts(result: RunResult) -> dict[str, str]:
    """Returns steps, batch, rate and time of the training."""
    trainer = result.record.get("config", {}).get("trainer") or {}
    rows = [row for row in result.history if row["split"] == "train"]
    if not rows:
        return {}
    rates = sorted(row["samples_per_s"] for row in rows if row.get("samples_per_s"))
    facts = {"Training steps": f"{max(row['step'] for row in result.history):,}"}
    batch = trainer.get("global_batch_size")
    if batch:
        facts["Batch size"] = f"{batch}"
    if rates:
        facts["Throughput"] = f"{rates[len(rates) // 2]:.3g} samples/s (median)"
    seconds = seconds_of(result.history, batch) if batch else None
    if seconds is not None:
        facts[TIME] = f"about {format_seconds(seconds)}"
    peaks = [row["memory_peak_gb"] for row in rows if "memory_peak_gb" in row]
    if peaks:
        facts["Memory at most"] = f"{max(peaks):.3g} GB on the first device"
    waits = sorted(row["data_wait"] for row in rows if "data_wait" in row)
    if waits:
        facts["Waiting for data"] = f"{waits[len(waits) // 2]:.1%} of a step (median)"
    if shares := _time_shares(rows):
        facts["Time of a step"] = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    energies = [row["energy_j"] for row in rows if "energy_j" in row]
    facts["Energy"] = f"{sum(energies) / 3.6e6:.3g} kWh" if energies else "not measured: no counter could be read"
    valid = [row for row in result.history if row["split"] == "valid" and row.get("loss") is not None]
    if valid:
        best = min(valid, key=lambda row: row["loss"])
        facts["Best validation loss"] = f"{best['loss']:.4g} at step {best['step']:,}"
    return facts


def format_seconds(seconds: float) -> str:
    """Returns ``42 s``, ``5 min`` or ``1.4 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _time_shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns shares of the time of the measured steps; empty where one process did it all."""
    names = [key for key in rows[-1] if key.startswith("time_")]
    totals = {name.removeprefix("time_"): sum(row.get(name, 0.0) for row in rows) for name in names}
    whole = sum(totals.values())
    return {name: total / whole for name, total in totals.items()} if len(names) > 2 and whole else {}


def _model(config: Mapping[str, Any]) -> str:
    parts = [f"{name} {value}" for name, value in config.items() if isinstance(value, (int, str)) and name != "name"]
    return ", ".join([str(config["name"]), *parts] if "name" in config else parts)


def _parameters(result: RunResult) -> str:
    """Counts parameters in the best checkpoint, in the averaged weights where there are some, since they leave
    out buffers.
    """
    exported = (result.directory / MANIFEST).is_file()
    best = result.directory if exported else CheckpointStore(result.directory / "checkpoints").best()
    if best is None:
        return ""
    shapes = tensor_shapes(best)
    prefix = "ema." if any(name.startswith("ema.") for name in shapes) else "model."
    return f"{sum(math.prod(shape) for name, shape in shapes.items() if name.startswith(prefix)):,}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else shown


def few_samples(count: int | None) -> list[str]:
    """Returns a warning, where scores rest on too few cases to say much."""
    if not count or count >= FEW_SAMPLES:
        return []
    return [f"Scored on {count} held-out sample{'s' * (count != 1)} only: far too few to judge a model by."]


def _limits(result: RunResult) -> list[str]:
    limits, scores = [], Scores.of(result)
    if not scores.rows:
        return ["Nothing was scored: how good this model is, is not known."]
    title = result.schema.get("title")
    limits.append(
        "The scores hold for the test part of the data named above"
        + (f" ({title})" if title else "")
        + "; they say nothing about other data."
    )
    limits += few_samples((result.record.get("samples") or {}).get("test"))
    lines = scores.main_lines
    lost = [line for line in lines if line.best != MODEL]
    if lost:
        worse = ", ".join(f"{line.variable} ({label_of(line.best)})" for line in lost[:MOST_NAMES])
        limits.append(f"A simple baseline is better for {len(lost)} of {len(lines)} variables: {worse}.")
    if scores.lead_times() and not any(metric.judges_spread for metric in scores.metrics):
        limits.append("A single forecast: it gives no measure of its own uncertainty.")
    return limits


def score_table(scores: Scores) -> list[str]:
    """Returns the main scores beside the baselines' as lines of Markdown, with lead times where these differ."""
    lines = scores.main_lines
    names = list(dict.fromkeys(name for line in lines for name in line.values))
    rows = [[line.variable, *(_number(line.values.get(name)) for name in names), line.unit] for line in lines]
    header = ["variable", *map(label_of, names), "unit"]
    if len({line.lead_time_h for line in lines}) > 1:  # else the headline tells it
        header.insert(1, "lead time")
        for row, line in zip(rows, lines, strict=True):
            row.insert(1, "" if line.lead_time_h is None else scores.time_text(line.lead_time_h))
    table = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    return ["## Scores", "", f"On held-out data. {headline(lines, scores.time_text)}", "", *table, ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
