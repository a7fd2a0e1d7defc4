"""Costs of a stage of a model for any number of samples, from passes of few samples and of twice as many."""

from __future__ import annotations

from sciml.distributed.communication import Count
from sciml.planning.costs import AffineCost, Messages, OpCost, StageProfile
from sciml.planning.op_meter import OpCount
from sciml.planning.pass_profile import PassProfile

MEMORY = ("saved_activations", "cast_weights", "backward_workspace")
"""Fields of :class:`StageProfile` that are bytes of memory."""


def stage_profile(one: PassProfile, two: PassProfile, few: int, stage: str) -> StageProfile:
    """Combines passes of few samples and of twice as many into the costs of a stage for any number of samples."""

    def through(a: float, b: float) -> AffineCost:
        cost = AffineCost.through(a, b)
        return AffineCost(cost.fixed, cost.per_sample / few)

    def messages(phase: str) -> Messages:
        counts = one.messages.get((phase, stage), {})
        return {key: Count(c.calls, round(c.bytes / few), c.wire_bytes / few) for key, c in counts.items()}

    def operations(phase: str) -> OpCost:
        first, second = (profile.operations.get((phase, stage), OpCount()) for profile in (one, two))
        names = ("flops", "products", "attention", "operand_bytes", "other_bytes", "cast_bytes")
        costs = {name: through(getattr(first, name), getattr(second, name)) for name in names}
        return OpCost(kernels=first.kernels, **costs)

    def memory(name: str) -> AffineCost:
        return through(*(getattr(profile, name).get(stage, 0) for profile in (one, two)))

    return StageProfile(
        operations("forward"),
        operations("backward"),
        messages("forward"),
        messages("backward"),
        **{name: memory(name) for name in MEMORY},
    )
