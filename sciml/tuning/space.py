"""Lists what a study of strategies chooses from: all that fit and that the plan does not put far behind its best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sciml.core.files import read_json, write_json
from sciml.planning.ranking import Candidate
from sciml.planning.search import Search
from sciml.planning.space import Space
from sciml.planning.strategy import Strategy

Value = str | int
NO_PIPELINE = "none"


@dataclass(frozen=True)
class Choice:
    """Holds a strategy that may be tried.

    Attributes:
        axes: what it decides, by name; no two choices of a study decide the same.
        keys: of the configuration, dotted, that train so; those at their defaults, too: an experiment may set others.
        text: its mesh in words.
        predicted_s: seconds of a step by the plan.
        predicted_bytes: of a device's memory by the plan.
    """

    axes: dict[str, Value]
    keys: dict[str, Value]
    text: str
    predicted_s: float
    predicted_bytes: float

    @classmethod
    def of(cls, candidate: Candidate) -> Choice:
        """Returns the choice of a plan's strategy."""
        strategy = candidate.strategy
        return cls(
            axes_of(strategy), strategy.keys(), strategy.text, candidate.step.total, float(candidate.memory.total)
        )

    @property
    def line(self) -> str:
        """Returns the choice in one line."""
        options = f"micro-batches of {self.axes['micro_batch']}, recompute {self.axes['recompute']}"
        engine = "" if self.axes["engine"] == "native" else f", {self.axes['engine']}"
        return f"{self.text}, {self.axes['precision']}, {options}{engine}"


def axes_of(strategy: Strategy) -> dict[str, Value]:
    """Returns what a strategy decides. What means nothing in it has one value, so that it makes no second strategy."""
    p = strategy.parallel
    return {
        **strategy.sizes,
        "zero": strategy.zero,
        "schedule": p.schedule if p.pp > 1 else NO_PIPELINE,
        "interleave": p.interleave,
        "micro_batch": strategy.micro_batch,
        "recompute": strategy.recompute,
        "precision": strategy.precision,
        "engine": strategy.engine.name,
    }


def overrides(choice: Choice, config: Mapping[str, Any]) -> list[str]:
    """Returns the arguments of ``scripts/train.py`` that train so, beside those that made a configuration."""
    return [f"{key}={value}" for key, value in choice.keys.items() if not _says(config, key, value)]


def _says(config: Mapping[str, Any], key: str, value: Value) -> bool:
    """Says whether a configuration trains so already."""
    if key == "engine":
        return config["engine"]["name"] == value
    group, _, name = key.partition(".")
    there = config[group].get(name, "none")  # a model that says nothing of recomputation does none
    return there == value or (name == "dp" and there is None)  # dp is what the other degrees leave


class Choices:
    """Holds all choices of a study, the plan's fastest first."""

    def __init__(self, rows: Sequence[Choice]) -> None:
        self.rows = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, search: Search, devices: int, tolerance: float) -> Choices:
        """Returns the strategies that fit and that the plan does not put far behind its best; none where nothing fits.

        Unlike a plan this keeps what differs from a faster one in precision or recomputation alone, for a plan may err.
        """
        best = search.fastest(devices)
        candidates = list(_within(search, devices, tolerance * best.step.total)) if best else []
        candidates.sort(key=lambda candidate: (candidate.step.total, candidate.memory.total))
        return cls(list({tuple(axes_of(c.strategy).values()): Choice.of(c) for c in candidates}.values()))

    @classmethod
    def read(cls, path: Path) -> Choices:
        """Reads choices from a file."""
        return cls(read_json(path, list[Choice], advice="name another folder with study="))

    def write(self, path: Path) -> None:
        """Writes the choices, for a study that goes on: they stay as they were when it began."""
        write_json(path, [asdict(row) for row in self.rows])

    @cached_property
    def values(self) -> dict[str, list[Value]]:
        """Returns the values of each axis that has more than one."""
        by_axis = {axis: {row.axes[axis]: None for row in self.rows} for axis in self.rows[0].axes}
        return {axis: sorted(values, key=_as_number) for axis, values in by_axis.items() if len(values) > 1}

    def at(self, axes: Mapping[str, Any]) -> Choice:
        """Returns the choice with some values of the axes that have more than one."""
        return next(row for row in self.rows if all(row.axes[axis] == value for axis, value in axes.items()))

    def first(self, count: int) -> list[Choice]:
        """Returns the choices to begin with: the plan's best of each mesh, then its best of all."""
        of_meshes = {row.text: row for row in reversed(self.rows)}.values()
        chosen = sorted(of_meshes, key=lambda row: row.predicted_s)[:count]
        return [*chosen, *(row for row in self.rows if row not in chosen)][:count]

    def nearest(self, axes: Mapping[str, Any], tried: Sequence[Choice]) -> Choice:
        """Returns the choice, of those not tried yet, that differs in the fewest axes; of several the plan's
        fastest.
        """
        free = [row for row in self.rows if row not in tried]
        return min(free, key=lambda row: sum(row.axes[axis] != value for axis, value in axes.items()))


def _as_number(value: Value) -> tuple[bool, float, str]:
    """Returns a key that sorts numbers by size, before words."""
    return isinstance(value, str), 0.0 if isinstance(value, str) else float(value), str(value)


def _within(search: Search, devices: int, limit: float) -> Iterator[Candidate]:
    """Yields the strategies that fit and take no longer than so many seconds; what is known sooner is asked first."""
    time = search.throughput
    for strategy in Space(search.facts, search.training, search.constraints).strategies(devices):
        if time.least(strategy) <= limit and time.bound(strategy) <= limit:
            candidate = search.judge(strategy)
            if isinstance(candidate, Candidate) and candidate.step.total <= limit:
                yield candidate
