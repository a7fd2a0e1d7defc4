"""Optional views of a run in other programs: TensorBoard, MLflow, Weights & Biases. They can never kill a run.

A view is opened when a training begins, and once more when it was scored: its parameters, metrics, scores and report
then stand in one run of the other program. Without an address all of them keep their files in the run's folder.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from sciml.core.config import flat
from sciml.core.errors import DataError, MissingExtraError, SciMLError
from sciml.core.files import read_json, write_json

RECORD = "tracking.json"
"""Keeps the name that the other program gave the run, so that a resumed training goes on in it."""
PROJECT = "sciml"


@dataclass(frozen=True)
class TrackingConfig:
    """Says where to show a run besides ``metrics.jsonl``.

    Attributes:
        kind: ``none``, ``tensorboard``, ``mlflow`` or ``wandb``.
        uri: address of an MLflow or Weights & Biases server; None keeps everything in the run's folder (MLflow in a
            SQLite file, Weights & Biases offline).
    """

    kind: Literal["none", "tensorboard", "mlflow", "wandb"] = "none"
    uri: str | None = None


class View(Protocol):
    """Describes one run in another program; whatever it raises is caught by :class:`Tracker`."""

    def parameters(self, values: Mapping[str, Any]) -> None: ...

    def metric(self, name: str, value: float, step: int) -> None: ...

    def file(self, path: Path) -> None: ...

    def close(self) -> None: ...


class Tracker:
    """Hands what happens to another program; a failure there is reported once, and the program is left out then.

    Args:
        open_view: opens the view; it may fail, too.
        name: of the program, for messages.
        every: steps between training metrics that are shown.
    """

    def __init__(self, open_view: Callable[[], View], name: str, every: int = 1) -> None:
        self.name, self.every = name, every
        self.view: View | None = None
        self.view = self._guarded(open_view)

    def on_step(self, step: int, record: Mapping[str, Any]) -> None:
        if step == 1 or step % self.every == 0:
            self._metrics("train", step, record)

    def on_validation(self, step: int, record: Mapping[str, Any]) -> None:
        self._metrics("valid", step, record)

    def parameters(self, config: Mapping[str, Any]) -> None:
        """Shows what a run is made of, by dotted key."""
        values = {key: value for key, value in flat(config).items() if value is not None and value != {}}
        self._call(lambda view: view.parameters(values))

    def scores(self, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        """Shows the rows of ``scores.json``, e.g. as ``test/rmse/z500/72h``."""
        for row in rows:
            lead = row.get("lead_time_h")
            parts = ["test", str(row["metric"]), str(row["variable"]), *([f"{lead:g}h"] if lead is not None else [])]
            self._metric("/".join(parts), row["value"], step)

    def file(self, path: Path) -> None:
        """Keeps a file, such as the report, beside the numbers."""
        self._call(lambda view: view.file(path))

    def close(self) -> None:
        self._call(lambda view: view.close())

    def _metrics(self, split: str, step: int, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if isinstance(value, (int, float)):
                self._metric(f"{split}/{name}", value, step)

    def _metric(self, name: str, value: float, step: int) -> None:
        self._call(lambda view: view.metric(name, float(value), step))

    def _call(self, call: Callable[[View], None]) -> None:
        if self.view is not None:
            view = self.view
            self._guarded(lambda: call(view))

    def _guarded(self, call: Callable[[], Any]) -> Any:
        # Whatever goes wrong in somebody else's program (network, disk, protocol), training goes on.
        try:
            return call()
        except Exception as error:
            self.view = None
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            print(f"{self.name} does not answer and is left out from here on: {reason}", file=sys.stderr)
            return None


def check_tracking(config: TrackingConfig) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
        MissingExtraError: with the extra that brings it.
    """
    if config.kind != "none" and importlib.util.find_spec(config.kind) is None:
        raise MissingExtraError(config.kind, extra="tracking", purpose=f"for tracking={config.kind}")


def build_tracker(config: TrackingConfig, run_directory: Path, every: int = 1) -> Tracker | None:
    """Builds the tracker that a configuration asks for, or None."""
    if config.kind == "none":
        return None
    kinds: dict[str, Callable[[TrackingConfig, Path], View]] = {
        "tensorboard": TensorBoardView,
        "mlflow": MLflowView,
        "wandb": WandbView,
    }
    return Tracker(lambda: kinds[config.kind](config, run_directory), config.kind, every)


class TensorBoardView:
    """Writes event files into ``tensorboard/`` in the run's folder."""

    def __init__(self, config: TrackingConfig, run_directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run_directory / "tensorboard"))

    def parameters(self, values: Mapping[str, Any]) -> None:
        rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
        self.writer.add_text("parameters", f"| key | value |\n|---|---|\n{rows}")

    def metric(self, name: str, value: float, step: int) -> None:
        self.writer.add_scalar(name, value, step)

    def file(self, path: Path) -> None:
        self.writer.add_text("files", str(path.resolve()))

    def close(self) -> None:
        self.writer.close()


class MLflowView:
    """Writes a run of MLflow; without an address into a SQLite file in the run's folder."""

    def __init__(self, config: TrackingConfig, run_directory: Path) -> None:
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self.mlflow: Any = mlflow
        folder = run_directory.resolve()
        mlflow.set_tracking_uri(config.uri or f"sqlite:///{folder / 'mlflow.db'}")
        known = _recorded_name(run_directory, "mlflow")
        if known is None and config.uri is None and mlflow.get_experiment_by_name(PROJECT) is None:
            mlflow.create_experiment(PROJECT, artifact_location=(folder / "mlflow").as_uri())
        if known is None:
            mlflow.set_experiment(PROJECT)
        run = mlflow.start_run(run_id=known, run_name=run_directory.name)
        _record_name(run_directory, "mlflow", run.info.run_id)

    def parameters(self, values: Mapping[str, Any]) -> None:
        known = self.mlflow.active_run().data.params
        self.mlflow.log_params({name: value for name, value in values.items() if name not in known})

    def metric(self, name: str, value: float, step: int) -> None:
        self.mlflow.log_metric(name, value, step=step)

    def file(self, path: Path) -> None:
        self.mlflow.log_artifact(str(path))

    def close(self) -> None:
        self.mlflow.end_run()


class WandbView:
    """Writes a run of Weights & Biases; without an address offline, for ``wandb sync`` later."""

    def __init__(self, config: TrackingConfig, run_directory: Path) -> None:
        import wandb

        silent: dict[str, Any] = {"silent": True, "console": "off"}
        address = {} if config.uri is None else {"base_url": config.uri}
        self.run: Any = wandb.init(
            project=PROJECT,
            name=run_directory.name,
            id=_recorded_name(run_directory, "wandb"),
            resume="allow",
            dir=str(run_directory),
            mode="offline" if config.uri is None else "online",
            settings=wandb.Settings(**silent, **address),
        )
        self.run.define_metric("*", step_metric="step")
        _record_name(run_directory, "wandb", self.run.id)

    def parameters(self, values: Mapping[str, Any]) -> None:
        self.run.config.update(dict(values), allow_val_change=True)

    def metric(self, name: str, value: float, step: int) -> None:
        self.run.log({name: value, "step": step})

    def file(self, path: Path) -> None:
        self.run.save(str(path), base_path=str(path.parent), policy="now")

    def close(self) -> None:
        self.run.finish()


def _recorded_name(run_directory: Path, kind: str) -> str | None:
    """Returns the name that a program gave the run before; None where there is none that can be read."""
    try:
        names: dict[str, str] = read_json(run_directory / RECORD, dict[str, str])
    except (DataError, OSError):
        return None
    return names.get(kind)


def _record_name(run_directory: Path, kind: str, name: str) -> None:
    try:
        names = read_json(run_directory / RECORD, dict[str, str])
    except (SciMLError, OSError):
        names = {}
    write_json(run_directory / RECORD, {**names, kind: name})
