"""Where the time of a training step goes, and what it means for a training."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step on the rank that has most to do.

    Attributes:
        compute: forward and backward passes.
        tp, sp, pp: messages within micro-batches, for which everybody waits.
        dp: reduction and gathering of gradients and weights, as far as no computing hides it.
        bubble: waiting for the first and the last micro-batch to pass through a pipeline.
        update: of the weights.
    """

    compute: float
    tp: float
    sp: float
    pp: float
    dp: float
    bubble: float
    update: float

    @property
    def total(self) -> float:
        return self.compute + self.tp + self.sp + self.pp + self.dp + self.bubble + self.update

    def parts(self) -> dict[str, float]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Speed:
    """What a step's time means.

    Attributes:
        samples_per_s: of the whole machine.
        model_flops, hardware_flops: shares of the devices' peak (MFU, HFU): without and with what is computed again.
        hours, device_hours: of the whole training.
        energy_kwh, cost: of the whole training; None where the cluster tells no power, no price.
    """

    step: StepTime
    samples_per_s: float
    model_flops: float
    hardware_flops: float
    hours: float
    device_hours: float
    energy_kwh: float | None
    cost: float | None
