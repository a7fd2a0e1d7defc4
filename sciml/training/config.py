"""What users may say about training."""

from __future__ import annotations

from dataclasses import dataclass

from sciml.core.config import choice, positive
from sciml.core.errors import ConfigError
from sciml.training.optimizer import OPTIMIZERS


@dataclass(frozen=True)
class TrainerConfig:
    """How long, how large, how precise, and how often to look and to save.

    Attributes:
        max_steps: optimizer steps.
        global_batch_size: samples a step over all ranks and micro-batches.
        micro_batch_size: samples a forward pass on one rank; None takes the rank's whole share at once.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast; parameters, optimizer, head and loss stay float32.
        valid_every: steps between validations; also after the last step.
        valid_samples: validation samples used each time; None takes all.
        save_every: steps between checkpoints; also after the last step.
        keep_last: checkpoints kept besides the best.
        log_every: steps between lines of ``metrics.jsonl``.
        num_workers: loader processes; 0 loads in the training process.
        num_threads: CPU threads of one process; None leaves torch's choice.
        device: ``auto``, ``cpu``, ``cuda``, ...
        async_save: whether training goes on while a checkpoint is written.
        timeout_s: longest wait for another process; after it the run ends and says whom it waited for.
        trace_steps: steps traced by torch.profiler near the start; the trace lies in the run's folder.
    """

    max_steps: int = 1000
    global_batch_size: int = 16
    micro_batch_size: int | None = None
    precision: str = "fp32"
    valid_every: int = 200
    valid_samples: int | None = None
    save_every: int = 200
    keep_last: int = 2
    log_every: int = 10
    num_workers: int = 0
    num_threads: int | None = None
    device: str = "auto"
    async_save: bool = True
    timeout_s: float = 600.0
    trace_steps: int = 0

    def __post_init__(self) -> None:
        choice(self.precision, ("fp32", "bf16", "fp16"), "trainer.precision")
        for name in ("max_steps", "global_batch_size", "valid_every", "save_every", "keep_last", "log_every"):
            positive(getattr(self, name), f"trainer.{name}", example=16)
        if self.micro_batch_size is not None:
            positive(self.micro_batch_size, "trainer.micro_batch_size", example=self.global_batch_size)
        positive(self.timeout_s, "trainer.timeout_s", example=600)
        for name, meaning in (("num_workers", "0 loads in-process"), ("trace_steps", "0 traces nothing")):
            if getattr(self, name) < 0:
                raise ConfigError(f"{getattr(self, name)} is negative", key=f"trainer.{name}", hint=meaning)

    def micro_batch(self, num_ranks: int) -> int:
        """Samples of one forward pass on one of ``num_ranks`` data-parallel ranks.

        Raises:
            ConfigError: where the batch cannot be cut into equal parts.
        """
        if self.global_batch_size % num_ranks:
            fitting = -(-self.global_batch_size // num_ranks) * num_ranks
            raise ConfigError(
                f"{self.global_batch_size} samples cannot be shared equally by {num_ranks} ranks",
                key="trainer.global_batch_size",
                hint=f"for example {fitting}",
            )
        share = self.global_batch_size // num_ranks
        micro = self.micro_batch_size or share
        if share % micro:
            fitting = max(size for size in range(1, micro + 1) if share % size == 0)
            raise ConfigError(
                f"a rank's share of {share} samples cannot be cut into micro-batches of {micro}",
                key="trainer.micro_batch_size",
                hint=f"for example {fitting}",
            )
        return micro


@dataclass(frozen=True)
class OptimConfig:
    """An optimizer with warm-up and cosine decay, clipping and an average of the weights.

    Attributes:
        name: ``adamw``, ``muon`` (matrices inside of blocks by Muon, the rest by AdamW) or ``sgd``.
        lr: peak learning rate.
        min_lr_ratio: learning rate after the last step, as a share of the peak.
        warmup_steps: steps of linear warm-up.
        betas, eps: of AdamW.
        momentum: of Muon and SGD.
        weight_decay: decoupled decay of matrices; vectors (biases, norms) are not decayed.
        clip_norm: largest global gradient norm; None does not clip.
        ema_decay: decay of the exponential moving average of the weights; None keeps no average.
    """

    name: str = "adamw"
    lr: float = 1e-3
    min_lr_ratio: float = 0.01
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    momentum: float = 0.9
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    ema_decay: float | None = 0.99

    def __post_init__(self) -> None:
        choice(self.name, tuple(OPTIMIZERS), "optim.name")
        positive(self.lr, "optim.lr", example=1e-3)
        if self.clip_norm is not None:
            positive(self.clip_norm, "optim.clip_norm", example=1.0)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError(
                f"{self.ema_decay} is not between 0 and 1", key="optim.ema_decay", hint="for example 0.99"
            )
