"""The training loop of all domains. It knows a task, an engine and a source of samples, and nothing of science."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sciml.core.errors import ConfigError, RunError, SciMLError
from sciml.core.seeding import seed_step
from sciml.data.loader import ShuffledSampler, training_batches
from sciml.distributed.axes import Role
from sciml.distributed.launcher import launched
from sciml.distributed.mesh import Mesh
from sciml.domain.optional import FollowsTraining
from sciml.domain.protocol import Splits, Task
from sciml.training.breakdown import Breakdown
from sciml.training.callbacks import Callback, is_logged
from sciml.training.checkpoint import CheckpointStore, read_manifest
from sciml.training.checkpoint_files import Group
from sciml.training.compilation import Compilation
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.device_memory import memory_in_use
from sciml.training.ema import WeightAverage
from sciml.training.energy import EnergyMeter
from sciml.training.engine import Engine
from sciml.training.finite_watch import EarlierStepError
from sciml.training.node_checkpoints import NodeCheckpoints
from sciml.training.pace import Pace
from sciml.training.saved_training import SavedTraining
from sciml.training.schedule import learning_rate
from sciml.training.step_math import NotFiniteError, StepOutput
from sciml.training.stopping import Stopping
from sciml.training.utilization import ModelFlops
from sciml.training.validation import Validation

PINS = ("cuda", "xpu")
"""Devices that copy from pinned memory while they compute."""


@dataclass(frozen=True)
class _LaunchedStep:
    """Holds a step whose result may not be there yet.

    Attributes:
        result: waits for it.
        lr: learning rate.
        times: where its time went, of a step that is logged.
    """

    result: Callable[[], StepOutput]
    lr: float
    is_logged: bool
    times: Mapping[str, float]


class Trainer:
    """Trains a model from a step to the last, validating and saving on the way.

    Args:
        flops: of the model, for the log; None where they are not known, or on ranks that write none.

    Raises:
        ConfigError: where there is nothing to train on.
    """

    def __init__(
        self,
        config: TrainerConfig,
        optim: OptimConfig,
        *,
        seed: int,
        mesh: Mesh,
        engine: Engine,
        task: Task,
        splits: Splits,
        checkpoints: CheckpointStore,
        on_nodes: NodeCheckpoints | None = None,
        flops: ModelFlops | None = None,
    ) -> None:
        if len(splits.train) == 0:
            raise ConfigError("the training period has no sample", key="data", hint="choose a longer one")
        self.config, self.optim, self.seed, self.mesh = config, optim, seed, mesh
        self.engine, self.task, self.splits, self.checkpoints = engine, task, splits, checkpoints
        self.on_nodes, self.flops = on_nodes, flops
        self.average = WeightAverage(engine.weights(), optim.ema_decay) if optim.ema_decay else None
        self.saved = SavedTraining(engine, self.average, optim.name)
        self.validation = Validation(config, engine, task, splits.valid, self.average, seed)
        self.breakdown = Breakdown(mesh)
        self.compilation = Compilation(config.compile, engine, task)
        self.pace = Pace()
        self.energy = EnergyMeter(mesh.device, local_rank=launched().local_rank)
        self.step = 0
        self.stream = ShuffledSampler(len(splits.train), config.global_batch_size, seed)

    def fit(self, callbacks: Sequence[Callback] = ()) -> bool:
        """Trains up to ``max_steps``.

        Returns:
            False where SIGTERM or SIGINT ended the training early; a checkpoint was then saved.

        Raises:
            NotFiniteError: where the loss is no longer finite; the last good checkpoint is kept.
        """
        config = self.config
        batches, num_micro = self._batches(self.step, config.max_steps, config.num_workers)
        first = self.step + 1
        with Stopping(self.mesh.world) as stopping, ExitStack() as stack:
            stack.callback(self._finish_saving)
            for callback in callbacks:
                stack.callback(callback.close)
            while self.step < config.max_steps:
                launched_step = self._launch(batches, num_micro)
                stop = stopping.agreed(self.step, self.pace.step_s)
                last = self.step == config.max_steps
                # Saved before it is validated: whatever goes wrong while scoring costs no training.
                due = last or stop or self.step % config.save_every == 0
                validates = last or self.step % config.valid_every == 0
                saves = due or self._saves_on_nodes()
                # What is saved or scored is known to be finite, and the first step is shown.
                needed = saves or validates or self.step == first
                is_read = needed or launched_step.is_logged or self.compilation.waits
                record = self._read(launched_step) if is_read else {}
                del launched_step  # and its batch, before the next
                for callback in callbacks:
                    callback.on_step(self.step, record)
                if saves:
                    self.save(on_nodes=not due)
                if validates:
                    self._validate(callbacks, saved=due)
                if stop and not last:
                    return False
        if self.on_nodes is not None:
            self.on_nodes.remove()
        return True

    def _batches(self, start: int, stop: int, num_workers: int) -> tuple[Iterator[Any], int]:
        """Returns this rank's micro-batches of some steps, and how many there are a step."""
        micro_batch = self.config.micro_batch(self.mesh.num_data_ranks)
        batches = training_batches(
            self.splits.train,
            self.stream,
            start_step=start,
            stop_step=stop,
            micro_batch_size=micro_batch,
            rank=self.mesh.data_rank,
            num_ranks=self.mesh.num_data_ranks,
            num_workers=num_workers,
            pin_memory=self.mesh.device.type in PINS,
        )
        return batches, self.config.global_batch_size // self.mesh.num_data_ranks // micro_batch

    def _launch(self, batches: Iterator[Any], num_micro: int) -> _LaunchedStep:
        """Launches the next step, and its update of the average."""
        began = time.monotonic()
        micro_batches = self._load(batches, num_micro)
        waited = time.monotonic() - began
        lr = self._prepare()
        logged = is_logged(self.step + 1, self.config.log_every)
        try:
            with self.breakdown.step(waited, measure=logged) as times:
                result = self.engine.launch_step(self.task, micro_batches, lr)
        except SciMLError as error:
            raise self._at_this_step(error) from None
        if self.average is not None:
            self.average.update(self.engine.weights(), self.step)
        self.step += 1
        self.pace.add(time.monotonic() - began, waited)
        return _LaunchedStep(result, lr, logged, times)

    def _load(self, batches: Iterator[Any], num_micro: int) -> list[Any]:
        try:
            return [next(batches).to(self.mesh.device) for _ in range(num_micro)]
        except SciMLError as error:
            raise self._at_this_step(error) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).splitlines()[0].rstrip(".")
            advice = "; if the memory was not enough, try a smaller trainer.num_workers"
            raise self._at_this_step(RunError(f"{reason}{advice}")) from None

    def _prepare(self) -> float:
        """Sets all that depends on the step, and returns its learning rate."""
        seed_step(self.seed, self.step, self.mesh.world.rank, shared=(self.mesh.data_rank, self.mesh.rank(Role.STAGE)))
        if isinstance(self.task, FollowsTraining):
            self.task.at_step(self.step, self.config.max_steps)
        return learning_rate(self.optim, self.step, self.config.max_steps)

    def _read(self, launched_step: _LaunchedStep) -> dict[str, float]:
        """Waits for the end of the step that was launched last, and returns its record."""
        began = time.monotonic()
        try:
            output = launched_step.result()
        except EarlierStepError as error:
            self.step -= 1 + error.steps_ago
            raise self._at_this_step(self._found_again()) from None
        except SciMLError as error:
            self.step -= 1
            raise self._at_this_step(error) from None
        self.pace.read(time.monotonic() - began)
        self.compilation.after_step(self.pace.step_s, self.config.max_steps - self.step)
        logged, device = launched_step.is_logged, self.mesh.device
        energy = self.energy.total(self.mesh.world) if logged else None
        samples_per_s = self.config.global_batch_size / self.pace.step_s
        each = samples_per_s / self.mesh.world.size
        return {
            "loss": output.loss,
            **output.parts,
            "lr": launched_step.lr,
            "grad_norm": output.grad_norm,
            **self.engine.math.scale.record(),
            "epoch": self.stream.epoch_of(self.step),
            "samples_per_s": samples_per_s,
            "samples_per_s_per_device": each,
            **({} if self.flops is None else self.flops.record(each)),
            "data_wait": self.pace.data_wait,
            **launched_step.times,
            **({} if energy is None else {"energy_j": energy}),
            **(memory_in_use(device) if logged else {}),
        }

    def _found_again(self) -> SciMLError:
        """Returns what is said of the step at which the training stands, taken again with the weights that it had."""
        batches, num_micro = self._batches(self.step, self.step + 1, num_workers=0)
        micro_batches = self._load(batches, num_micro)
        try:
            self.engine.train_step(self.task, micro_batches, self._prepare())
        except SciMLError as error:
            return error
        return NotFiniteError("the loss or a gradient is not finite, and is when the step is taken again")

    def _at_this_step(self, error: SciMLError) -> SciMLError:
        """Returns an error that also names the step and the last checkpoint."""
        self.checkpoints.finish()
        latest = self.checkpoints.latest()
        checkpoint = f"the last good checkpoint is {latest}" if latest else "no checkpoint had been saved yet"
        advice = "; try a smaller optim.lr" if isinstance(error, NotFiniteError) else ""
        return type(error)(f"step {self.step + 1}: {error}; {checkpoint}{advice}")

    def save(self, *, on_nodes: bool = False) -> None:
        """Saves weights, optimizer, average and position, in the run's folder or on the disks of the nodes."""
        store = self.on_nodes if on_nodes and self.on_nodes is not None else self.checkpoints
        samples = self.stream.samples(self.step)
        store.save(self.step, self.saved.tensors(), samples=samples, optimizer=self.optim.name)

    def _saves_on_nodes(self) -> bool:
        return self.on_nodes is not None and self.step % self.config.node_save_every == 0

    def _finish_saving(self) -> None:
        self.checkpoints.finish()
        if self.on_nodes is not None:
            self.on_nodes.finish()

    def _validate(self, callbacks: Sequence[Callback], *, saved: bool) -> None:
        record = self.validation.run()
        for callback in callbacks if record else ():  # without validation samples there is nothing to tell
            callback.on_validation(self.step, record)
        self._keep_if_best(record, saved=saved)

    def _keep_if_best(self, record: Mapping[str, float], *, saved: bool) -> None:
        best = self.mesh.world.share(self.checkpoints.best_loss())  # one answer for all, read before it is changed
        loss = record.get("loss", math.nan)
        if math.isfinite(loss) and (best is None or loss < best):
            if not saved:
                self.save()
            self.checkpoints.mark_best(self.step, loss)

    def resume(self, path: Path, group: Group) -> list[str]:
        """Takes over everything from an intact checkpoint and stands where it stood.

        Args:
            group: the processes that read it together.

        Returns:
            What begins anew, since the checkpoint does not have it, in sentences.

        Raises:
            ConfigError: where its weights are those of another model.
        """
        manifest = read_manifest(path, group, verify=False)
        self.step = manifest["step"]
        self.checkpoints.forget_best_after(self.step)
        self.stream = self.stream.resumed(self.step, manifest.get("samples", self.stream.samples(self.step)))
        return self.saved.restore(path, group, manifest.get("optimizer"))
