"""Holds the keys that users may set about training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sciml.core.config import one_of
from sciml.core.errors import ConfigError
from sciml.core.types import (
    AtLeastOne,
    DeviceName,
    FilePath,
    Fraction,
    FractionBelowOne,
    NonNegative,
    OpenFraction,
    Positive,
)
from sciml.training.optimizer import OPTIMIZERS
from sciml.training.schedule import Schedule

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["auto"] | bool


@dataclass(frozen=True)
class TrainerConfig:
    """Says how long to train, how large the batch is, in which precision, and how often to validate and to save.

    Attributes:
        max_steps: optimizer steps.
        budget_s: CPU seconds (on an accelerator seconds) of training, from which ``max_steps`` is found when a run
            begins; None takes ``max_steps`` as it is.
        global_batch_size: samples a step over all ranks and micro-batches.
        micro_batch_size: samples a forward pass on one rank; None takes the rank's whole share at once.
        precision: ``fp32``, ``bf16`` or ``fp16`` autocast; parameters, optimizer, head and loss stay float32. ``auto``
            is bf16 on devices that compute products in it, else fp32.
        tf32: whether NVIDIA's devices round what they multiply in float32 to 10 bits, in matrix products and in
            convolutions; torch alone does so in convolutions.
        compile: whether torch compiles transformer blocks: ``true``, ``false``, or ``auto``, which does where the
            training goes on for long enough. Compiled sums are rounded differently.
        valid_every: steps between validations; also after the last step.
        valid_samples: validation samples used each time; None takes all.
        save_every: steps between checkpoints; also after the last step.
        keep_last: checkpoints kept besides the best.
        node_folder: a folder on each node's own disk, for checkpoints from which a training goes on if its processes
            are restarted on the same nodes; None keeps none.
        node_save_every: steps between them.
        log_every: steps between lines of ``metrics.jsonl``.
        num_workers: loader processes; 0 loads in the training process.
        num_threads: CPU threads of one process; None leaves torch's choice.
        device: ``auto``, ``cpu``, ``cuda``, ...
        async_save: whether training goes on while a checkpoint is written.
        verify_checksums: whether files of a checkpoint are hashed before they are loaded; headers always are read.
        timeout_s: longest wait for another process; after it the run ends and says whom it waited for.
        trace_steps: steps traced by torch.profiler near the start; the trace lies in the run's folder.
    """

    max_steps: AtLeastOne = 1000
    budget_s: Positive[float] | None = None
    global_batch_size: AtLeastOne = 16
    micro_batch_size: AtLeastOne | None = None
    precision: PrecisionChoice = "fp32"
    tf32: bool = False
    compile: Compile = False
    valid_every: AtLeastOne = 200
    valid_samples: AtLeastOne | None = None
    save_every: AtLeastOne = 200
    keep_last: AtLeastOne = 2
    node_folder: FilePath | None = None
    node_save_every: AtLeastOne = 50
    log_every: AtLeastOne = 10
    num_workers: NonNegative[int] = 0
    num_threads: AtLeastOne | None = None
    device: DeviceName = "auto"
    async_save: bool = True
    verify_checksums: bool = True
    timeout_s: Positive[float] = 600.0
    trace_steps: NonNegative[int] = 0

    def micro_batch(self, num_ranks: int) -> int:
        """Returns the number of samples of one forward pass on one of ``num_ranks`` data-parallel ranks.

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
    """Describes an optimizer with the schedule of its learning rate, clipping and an average of the weights.

    Attributes:
        name: ``adamw``, ``muon`` (matrices inside of blocks by Muon, the rest by AdamW) or ``sgd``.
        lr: peak learning rate.
        min_lr_ratio: learning rate after the decay, as a share of the peak.
        warmup_steps: steps of linear warm-up.
        schedule: ``cosine`` decays from the end of the warm-up on; ``wsd`` (warm-up, stable, decay) keeps the peak and
            decays at the end, so that a training may be prolonged, and decayed from any checkpoint.
        decay_steps: steps of the decay. None: the cosine's are all from the warm-up to ``max_steps`` when the run
            begins, those of ``wsd`` the last tenth.
        betas, eps: of AdamW.
        momentum: of Muon and SGD.
        weight_decay: decoupled decay of matrices; vectors (biases, norms) are not decayed.
        clip_norm: largest global gradient norm; None does not clip.
        ema_decay: decay of the exponential moving average of the weights; None keeps no average.
    """

    name: str = "adamw"
    lr: Positive[float] = 1e-3
    min_lr_ratio: Fraction = 0.01
    warmup_steps: NonNegative[int] = 100
    schedule: Schedule = "cosine"
    decay_steps: AtLeastOne | None = None
    betas: tuple[FractionBelowOne, FractionBelowOne] = (0.9, 0.95)
    eps: Positive[float] = 1e-8
    momentum: FractionBelowOne = 0.9
    weight_decay: NonNegative[float] = 0.01
    clip_norm: Positive[float] | None = 1.0
    ema_decay: OpenFraction | None = 0.99

    def __post_init__(self) -> None:
        one_of(self.name, OPTIMIZERS, "optim.name")
