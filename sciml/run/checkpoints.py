"""Opens the checkpoints of a run, those in its folder and those on the disks of the nodes, and restores the newest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sciml.distributed.world import World
from sciml.run.folder import RunFolder
from sciml.run.spec import RunSpec
from sciml.training.checkpoint import CheckpointStore
from sciml.training.checkpoint_layout import step_of
from sciml.training.node_checkpoints import NodeCheckpoints
from sciml.training.trainer import Trainer


def open_checkpoints(spec: RunSpec, world: World, folder: RunFolder) -> CheckpointStore:
    """Opens the checkpoints of a run for writing, by all ranks together."""
    config = spec.trainer
    return CheckpointStore(
        folder.checkpoints, world, config.keep_last, asynchronous=config.async_save, timeout_s=config.timeout_s
    )


def open_on_nodes(spec: RunSpec, store: CheckpointStore, folder: RunFolder) -> NodeCheckpoints | None:
    """Opens the checkpoints of a run on the disks of the nodes; None where none are asked for.

    They belong to this very run, and mean nothing to one that is begun later in the same folder.

    Args:
        store: the run's own checkpoints.
    """
    config = spec.trainer
    if config.node_folder is None:
        return None
    began = folder.record["provenance"].get("time", "")
    identity = hashlib.sha256(f"{folder.path.resolve()} {began}".encode()).hexdigest()[:12]
    place = Path(config.node_folder) / f"{folder.path.name}-{identity}"
    return NodeCheckpoints(place, store.world, repr(spec.parallel), store.group, timeout_s=config.timeout_s)


def restore_newest(trainer: Trainer, checkpoint: Path | None, folder: RunFolder) -> list[str]:
    """Restores the newest checkpoint.

    Args:
        checkpoint: the newest in the run's folder; None where there is none.
        folder: of the run, whose record still has the keys that it was trained with.

    Returns:
        Sentences: what begins anew, and whether the nodes had a newer one.
    """
    return [*_restored(trainer, checkpoint), *_choose_best_anew(trainer, folder)]


def _restored(trainer: Trainer, checkpoint: Path | None) -> list[str]:
    on_nodes = trainer.on_nodes
    nearer = None if on_nodes is None else on_nodes.newest(-1 if checkpoint is None else step_of(checkpoint))
    if on_nodes is not None and nearer is not None:
        said = trainer.resume(nearer, on_nodes.group)
        return [*said, f"goes on from step {trainer.step}, which every node has on its own disk"]
    return [] if checkpoint is None else trainer.resume(checkpoint, trainer.checkpoints.group)


def _choose_best_anew(trainer: Trainer, folder: RunFolder) -> list[str]:
    """Forgets which checkpoint was the best where from now on losses are those of other validation samples."""
    before, now = folder.record["config"]["trainer"].get("valid_samples"), trainer.config.valid_samples
    if before == now or trainer.checkpoints.best_loss() is None:
        return []
    trainer.checkpoints.forget_best_after(-1)
    return ["trainer.valid_samples has changed, so the best checkpoint is chosen anew: losses cannot be compared"]
