"""What a rank keeps of parameters: weights, gradients, moments, average, and what reducing and updating needs."""

from __future__ import annotations

from typing import NamedTuple

from sciml.distributed.collectives import BUCKET_BYTES
from sciml.planning.facts import FLOAT32, Accounting
from sciml.planning.rank_parameters import Held
from sciml.planning.strategy import Strategy, Training

# Of DeepSpeed 0.19's defaults, which the suite leaves as they are: numbers in a bucket of gradients, in the parameters
# that stage 3 keeps gathered, and in those that it gathers ahead.
DEEPSPEED_BUCKET, DEEPSPEED_LIVE, DEEPSPEED_AHEAD = 5e8, 1e9, 5e7
TEMPORARIES = 3
"""Tensors as large as the largest parameter that an update of one parameter after the other needs."""


class State(NamedTuple):
    """Bytes on a device.

    Attributes:
        buffers: beside the activations: gathered weights, buckets of gradients.
        update: what an update needs, when activations are gone.
        updated: numbers that the device updates.
    """

    weights: float
    gradients: float
    moments: float
    average: float
    buffers: float
    update: float
    updated: float

    @property
    def lasting(self) -> float:
        """Bytes between steps."""
        return self.weights + self.gradients + self.moments + self.average


def native_state(strategy: Strategy, held: Held, training: Training, *, on_accelerator: bool) -> State:
    """As :class:`sciml.training.engine.NativeEngine`, torch's DistributedDataParallel and FSDP2 hold it."""
    p = strategy.parallel
    replicas = strategy.sizes["dp"] * p.sp
    whole = float(FLOAT32 * held.numel)
    own = whole if p.shard == 1 else float(FLOAT32 * held.padded(p.shard))
    # The buckets of DistributedDataParallel stand beside the gradients.
    buckets = whole if p.pp == 1 and replicas > 1 else 0.0
    buffers = _gathered(strategy, held, training) if p.shard > 1 else buckets
    # An accelerator updates plain tensors all at once, with a temporary as large as they are.
    at_once = on_accelerator and p.shard == 1
    update = whole if at_once else float(TEMPORARIES * FLOAT32 * held.largest)
    if (p.pp > 1 and replicas > 1) or (p.shard > 1 and p.sp > 1):
        update = max(update, BUCKET_BYTES, FLOAT32 * held.largest)
    per_number = own / FLOAT32
    return State(own, own, training.moments * per_number, training.average * per_number, buffers, update, per_number)


def _gathered(strategy: Strategy, held: Held, training: Training) -> float:
    """Weights and gradients that FSDP2 has whole at a time; see :mod:`sciml.parallel.data`."""
    p = strategy.parallel
    whole, block = float(FLOAT32 * held.numel), float(FLOAT32 * held.largest_block)
    if p.pp > 1 or p.zero < 3:  # through the step, and the block that is arriving
        weights = whole + block
    else:  # what is never let go; this block, the next, and one that is arriving
        kept = FLOAT32 * (held.root.numel + (held.blocks[-1].numel if held.blocks else 0))
        weights = min(kept + 3 * block, whole + block)
    accumulates = p.pp > 1 or (p.zero == 1 and strategy.micro_batches(training) > 1)
    return weights + (whole if accumulates else 2 * block)


def deepspeed_state(strategy: Strategy, held: Held, training: Training) -> State:
    """As DeepSpeed holds parameters of float32: whole and, for its optimizer, a copy of its own partition."""
    zero, offload = strategy.zero, strategy.engine.offload == "cpu"
    whole, bucket = float(FLOAT32 * held.numel), FLOAT32 * DEEPSPEED_BUCKET
    if zero == 0:
        moments, average = (bytes_of / FLOAT32 * whole for bytes_of in (training.moments, training.average))
        return State(whole, whole, moments, average, min(whole, bucket), whole, held.numel)
    part = whole / (strategy.data_ranks * strategy.sizes["sp"])
    updated = 0.0 if offload else part / FLOAT32  # else by the host
    moments, copy = (0.0, 0.0) if offload else (training.moments / FLOAT32 * part, part)
    average = training.average / FLOAT32 * (part if zero == 3 else whole)
    if zero == 3:
        live = FLOAT32 * min(float(held.numel), DEEPSPEED_LIVE + DEEPSPEED_AHEAD)
        return State(part + copy, part, moments, average, bucket + live, part, updated)
    gradients = part if zero == 2 else whole + part
    return State(whole + copy, gradients, moments, average, bucket, part, updated)


def accounted_state(accounting: Accounting, strategy: Strategy, held: Held) -> State:
    """By another accounting, with ZeRO over all data ranks."""
    zero, numel = strategy.zero, float(held.numel)
    # Stage 3 gathers what is in no layer, and has one layer at work while the next one arrives.
    gathered = accounting.wire * (held.root.numel + 2 * held.largest_block) if zero == 3 else 0.0
    optimizer, gradients, weights = (strategy.data_ranks if zero >= stage else 1 for stage in (1, 2, 3))
    return State(
        numel * ((accounting.weights - accounting.master + accounting.other) / weights + accounting.master / optimizer),
        numel * accounting.gradients / gradients,
        numel * accounting.moments / optimizer,
        0.0,
        gathered,
        0.0,
        numel / optimizer,
    )
