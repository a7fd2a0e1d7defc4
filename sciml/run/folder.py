"""The folder of a run: its name, its files, and how both are found again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from sciml.core.command_line import CONFIG_DIR, command
from sciml.core.config import flat
from sciml.core.errors import ConfigError, DataError, nearest
from sciml.core.files import disk_errors, read_json, read_json_lines, write_json
from sciml.core.groups import options
from sciml.core.installation import ROOT, located
from sciml.core.outputs import numbered_folder
from sciml.core.provenance import now, provenance
from sciml.domain.score import ScoreRow
from sciml.domain.trust import check_declared
from sciml.training.callbacks import MetricsRow
from sciml.training.checkpoint_layout import MANIFEST, steps_in

RECORD = "run.json"


def new_path(runs_dir: str, domain: str, name: str | None) -> Path:
    """Returns the path of a new run's folder; without a name it is named by time.

    Raises:
        ConfigError: the name is one by which the run could not be found again.
    """
    if name is not None and ("/" in name or name in ("", ".", "..", "latest")):
        raise ConfigError(
            f"must be a name, got {name!r}", key="run", hint=f"the folder of all runs is {runs_dir}, see runs_dir="
        )
    return Path(runs_dir) / domain / (name or f"{now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}")


class RunRecord(TypedDict):
    """Says what ``run.json`` must have; it also has the samples of each split and the provenance."""

    domain: str
    config: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """Knows a run's ``run.json``, ``metrics.jsonl``, ``scores.json``, ``checkpoints/``, ``figures/`` and
    ``report.html``.

    Attributes:
        path: of the run.
        runs_dir: below which an exported model's results go.
    """

    path: Path
    runs_dir: Path = Path("runs")

    @classmethod
    def create(cls, path: Path, domain: str, config: Mapping[str, Any], samples: Mapping[str, int]) -> RunFolder:
        """Creates the folder of a new run and writes ``run.json``.

        Args:
            config: the composed configuration, as plain values.
            samples: how many samples each split has.

        Raises:
            ConfigError: where a run of this name is there already.
        """
        folder = cls(path)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                raise taken(path) from None
        folder.write_record(domain, config, samples)
        return folder

    def write_record(self, domain: str, config: Mapping[str, Any], samples: Mapping[str, int]) -> None:
        """Writes ``run.json``; takes what :meth:`create` takes."""
        record = {"domain": domain, "samples": samples, "config": config, "provenance": provenance()}
        write_json(self.record_file, record)

    def note_resume(self, config: Mapping[str, Any], step: int) -> None:
        """Writes the configuration that the run goes on with from a step, and notes which keys differ from before."""
        record = self.record
        now, before = flat(config), flat(record["config"])
        changed = {key: [before.get(key), now.get(key)] for key in {**before, **now} if before.get(key) != now.get(key)}
        if changed:
            resumes = [*record.get("resumes", []), {"step": step, "changed": changed, "provenance": provenance()}]
            write_json(self.record_file, {**record, "config": config, "resumes": resumes})

    @classmethod
    def find(
        cls,
        run: str,
        runs_dir: str,
        key: str = "run",
        *,
        can: Callable[[RunFolder], bool] | None = None,
        domain: str | None = None,
    ) -> RunFolder:
        """Finds a run by its folder, its name, or ``latest``; ``climate/monday`` and ``climate/latest`` name the
        domain.

        The latest is the one that was begun last, as ``run.json`` says, among those that have a checkpoint.

        Args:
            key: the configuration key that names it, for messages.
            can: says whether a run is one of those that ``latest`` may mean.
            domain: that a name without one is of; None for any.

        Raises:
            ConfigError: where there is none, or several domains have one of this name.
        """
        if domain is not None and "/" not in run and not cls(Path(run)).exists:
            run = f"{domain}/{run}"
        within, _, last = run.rpartition("/")
        if last == "latest" and not cls(Path(run)).exists:
            return cls._latest(Path(runs_dir), within or "*", key, can)
        for path in (Path(run), Path(located(run))):  # also one that comes with the project
            if cls(path).exists:
                return cls(path, Path(runs_dir))
        begun = sorted(file.parent for file in Path(runs_dir).glob(f"*/*/{RECORD}"))
        named = [path for path in begun if run in (path.name, f"{path.parent.name}/{path.name}")]
        if len(named) > 1:
            names = [f"{path.parent.name}/{path.name}" for path in named]
            raise ConfigError(
                f"several runs are called {run!r}: {', '.join(names)}", key=key, hint=f"e.g. {key}={names[0]}"
            )
        if named:
            return cls(named[0])
        known = [f"{path.parent.name}/{path.name}" if within else path.name for path in begun]
        raise ConfigError(
            f"there is no run {run!r}", key=key, hint=nearest(run, ["latest", *known, *committed_models()])
        )

    @classmethod
    def _latest(cls, runs_dir: Path, domain: str, key: str, can: Callable[[RunFolder], bool] | None) -> RunFolder:
        begun = [cls(file.parent) for file in runs_dir.glob(f"{domain}/*/{RECORD}")]
        where = f"{runs_dir}/" if domain == "*" else f"{runs_dir}/{domain}/"
        if not begun:
            raise no_run(str(runs_dir), None if domain == "*" else domain, key)
        ready = [run for run in begun if run.has_checkpoint]
        if not ready:
            raise ConfigError(f"no run under {where} has a checkpoint yet", key=key, hint="train longer")
        for run in sorted(ready, key=_beginning, reverse=True):
            if can is None or can(run):
                return run
        raise ConfigError(f"no run under {where} can do this", key=key, hint="choose a run of another domain")

    @property
    def record_file(self) -> Path:
        return self.path / RECORD

    @property
    def exists(self) -> bool:
        """Says whether a run was begun here."""
        return os.path.exists(self.record_file)  # False also of names that are too long, where Path raises

    @property
    def is_exported(self) -> bool:
        """Says whether this is an exported model: its weights lie in the folder itself, which is only read."""
        return (self.path / MANIFEST).is_file()

    @property
    def has_checkpoint(self) -> bool:
        """Says whether there are weights."""
        return self.is_exported or bool(steps_in(self.checkpoints))

    @property
    def results(self) -> Path:
        """Returns the folder of forecasts, predictions and further evaluations; an exported model's own stays as it
        is, and they go below ``runs_dir``.
        """
        return self.runs_dir / self.record["domain"] / self.path.name if self.is_exported else self.path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @cached_property
    def record(self) -> dict[str, Any]:
        """Returns the content of ``run.json``: domain, samples of each split, resolved configuration, provenance.

        Raises:
            DataError: where it is corrupted, or names a domain that must not be imported.
        """
        record: dict[str, Any] = read_json(self.record_file, RunRecord)
        check_declared(record["config"].get("domain"), self.record_file)
        return record

    def new_evaluation(self) -> Path:
        """Returns a new folder for an evaluation under other conditions than the run's own."""
        return numbered_folder(self.results / "evaluations")

    def scores(self) -> list[dict[str, Any]]:
        """Returns the rows of ``scores.json``; none before the first evaluation."""
        file = self.path / "scores.json"
        return read_json(file, list[ScoreRow]) if file.exists() else []

    def history(self) -> list[dict[str, Any]]:
        """Returns the rows of ``metrics.jsonl``."""
        file = self.path / "metrics.jsonl"
        return read_json_lines(file, MetricsRow) if file.exists() else []


def taken(path: Path) -> ConfigError:
    """Returns the error of a new run whose folder is there already."""
    return ConfigError(f"{path} is there already", key="run", hint="choose another name, or resume=")


def no_run(runs_dir: str, domain: str | None, key: str) -> ConfigError:
    """Returns the error of a folder without a run, which says what to do.

    Args:
        domain: of the runs that are looked for; None takes any.
        key: that names them.
    """
    where = f"{runs_dir}/" if domain is None else f"{runs_dir}/{domain}/"
    known = options("domain", CONFIG_DIR.get())
    if domain is None or domain in known:
        hint = f"train one: {command('train', **({} if domain is None else {'domain': domain}))}"
        mine = [name for name in committed_models() if name == f"models/{domain or 'climate'}"]
        hint += f", or take one that is there: {key}={mine[0]}" if mine and key in ("run", "init_from") else ""
    else:
        hint = nearest(domain, known)
    return ConfigError(f"there is no run under {where}", key=key, hint=hint)


def committed_models() -> list[str]:
    """Returns the names of the models that come with the project: ``models/climate`` and others."""
    return [f"models/{file.parent.name}" for file in sorted(ROOT.glob(f"models/*/{RECORD}"))]


def _beginning(run: RunFolder) -> tuple[str, float]:
    """Returns when a run was begun, as its record says; a copy is as old as what it is a copy of."""
    try:
        time = str(read_json(run.record_file, RunRecord).get("provenance", {}).get("time", ""))
    except DataError:
        time = ""
    return time, run.record_file.stat().st_mtime
