"""Optional views in other programs: TensorBoard, MLflow. They can never kill a run."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sciml.core.errors import MissingExtraError

Write = Callable[[str, float, int], None]


@dataclass(frozen=True)
class TrackingConfig:
    """Says where to show a run besides ``metrics.jsonl``.

    Attributes:
        kind: ``none``, ``tensorboard`` or ``mlflow``.
        uri: MLflow's tracking address; None keeps its files in the run's folder.
    """

    kind: Literal["none", "tensorboard", "mlflow"] = "none"
    uri: str | None = None


class Tracker:
    """Hands each number to another program; a failure there is reported once and then ignored."""

    def __init__(self, write: Write, close: Callable[[], None], name: str, every: int) -> None:
        self.write: Write | None = write
        self.finish, self.name, self.every = close, name, every

    def on_step(self, step: int, record: Mapping[str, Any]) -> None:
        if step == 1 or step % self.every == 0:
            self._send("train", step, record)

    def on_validation(self, step: int, record: Mapping[str, Any]) -> None:
        self._send("valid", step, record)

    def close(self) -> None:
        self._guard(self.finish)

    def _send(self, split: str, step: int, record: Mapping[str, Any]) -> None:
        for name, value in record.items():
            if self.write is not None and isinstance(value, (int, float)):
                self._guard(self.write, f"{split}/{name}", float(value), step)

    def _guard(self, call: Callable, *arguments: Any) -> None:
        # Whatever goes wrong in somebody else's program (network, disk, protocol), training goes on.
        try:
            call(*arguments)
        except Exception as error:
            self.write = None
            print(f"{self.name} does not answer and is left out from here on: {error}", file=sys.stderr)


def check_tracking(config: TrackingConfig) -> None:
    """Refuses a tracker whose package is not installed.

    Raises:
        MissingExtraError: with the extra that brings it.
    """
    if config.kind != "none" and importlib.util.find_spec(config.kind) is None:
        raise MissingExtraError(config.kind, extra="tracking", purpose=f"for tracking={config.kind}")


def build_tracker(config: TrackingConfig, run_directory: Path, every: int) -> Tracker | None:
    """Builds the tracker that a configuration asks for, or None."""
    if config.kind == "none":
        return None
    write, close = (_tensorboard if config.kind == "tensorboard" else _mlflow)(config, run_directory)
    return Tracker(write, close, config.kind, every)


def _tensorboard(config: TrackingConfig, run_directory: Path) -> tuple[Write, Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_directory / "tensorboard"))
    return writer.add_scalar, writer.close


def _mlflow(config: TrackingConfig, run_directory: Path) -> tuple[Write, Callable[[], None]]:
    import mlflow

    mlflow.set_tracking_uri(config.uri or f"file:{run_directory / 'mlflow'}")
    mlflow.start_run(run_name=run_directory.name)
    return (lambda name, value, step: mlflow.log_metric(name, value, step=step)), mlflow.end_run
