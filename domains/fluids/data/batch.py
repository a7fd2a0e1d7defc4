"""States of flows with the steps that lie ahead of them, data set by data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from domains.fluids.amr.forest import Forest
from domains.fluids.data.boundary import Boundary
from domains.fluids.solver.cases import Flow
from sciml.nn.regrid import regrid


@dataclass(frozen=True)
class Start:
    """Says where a sample starts: a trajectory of a data set, and a frame of it."""

    data_set: str
    trajectory: int
    frame: int


@dataclass(frozen=True)
class FlowSample:
    """Holds one flow at one time; attributes as those of :class:`FlowPart`, without the batch."""

    start: Start
    state: Float[Tensor, "variable z x"]
    previous: Float[Tensor, "variable z x"]
    steps: Sequence[float]
    targets: Float[Tensor, "step variable z x"] | None = None
    fluid: Bool[Tensor, "1 z x"] | None = None
    profiles: Float[Tensor, "2 z"] | None = None
    constants: Float[Tensor, "constant z x"] | None = None
    steady: Bool[Tensor, "variable"] | None = None
    flow: Flow | None = None
    pushforward_steps: int = 0


@dataclass(frozen=True)
class FlowPart:
    """Holds the samples of one data set in a batch, in physical units.

    Attributes:
        state: the current fields.
        previous: one frame or step before; where that is not known, the state itself.
        initial: at lead time zero; baselines start from them, however far the rollout is.
        lead_time: s from ``initial`` to ``state``.
        steps: s of the steps ahead; the same number for every sample.
        targets: the truth after each step, or None where it is not known.
        fluid: where there is no obstacle; None: everywhere.
        profiles: density and potential temperature of the air at rest, or None.
        constants: fields that do not change in time, or None.
        steady: of which variables the mean over the plane stays in each flow; None: of all that could.
        flows: what is simulated, of each sample, where that is known.
        starts: where the samples come from.
        pushforward_steps: in training, how many of the steps before the last start from the model's own state, of each
            sample.
        forest: where the step before refined, for hysteresis.
    """

    state: Float[Tensor, "batch variable z x"]
    previous: Float[Tensor, "batch variable z x"]
    initial: Float[Tensor, "batch variable z x"]
    lead_time: Float[Tensor, "batch"]
    steps: Float[Tensor, "batch step"]
    targets: Float[Tensor, "batch step variable z x"] | None = None
    fluid: Bool[Tensor, "batch 1 z x"] | None = None
    profiles: Float[Tensor, "batch 2 z"] | None = None
    constants: Float[Tensor, "batch constant z x"] | None = None
    steady: Bool[Tensor, "batch variable"] | None = None
    flows: tuple[Flow | None, ...] = ()
    starts: tuple[Start, ...] = ()
    pushforward_steps: tuple[int, ...] = ()
    forest: Forest | None = None

    @property
    def next_lead_time(self) -> Float[Tensor, "batch"]:
        """Returns the lead time of the state after the next step, s."""
        return self.lead_time + self.steps[:, 0]

    @property
    def known_flows(self) -> tuple[Flow, ...] | None:
        """Returns what is simulated, where it is known of any sample; others count as air at rest."""
        flows = tuple(flow or Flow("unknown") for flow in self.flows)
        return flows if any(flow.is_fixed for flow in flows) else None

    def regridded(self, cells: tuple[int, int], boundary: Boundary) -> FlowPart:
        """Returns the states that a step starts from, on another grid of the same domain."""
        names = ("state", "previous", "initial")
        changed: dict[str, Any] = {name: regrid(getattr(self, name), cells, boundary) for name in names}
        if self.targets is not None:
            targets = regrid(self.targets.flatten(0, 1), cells, boundary)
            changed["targets"] = targets.unflatten(0, self.targets.shape[:2])
        if self.constants is not None:
            changed["constants"] = regrid(self.constants, cells, boundary)
        if self.fluid is not None:
            changed["fluid"] = regrid(self.fluid.float(), cells, boundary) > 0.5
        if self.profiles is not None:
            changed["profiles"] = regrid(self.profiles[..., None], (cells[0], 1), boundary)[..., 0]
        return replace(self, **changed)

    def rows(self, chosen: Sequence[int]) -> FlowPart:
        """Returns some of the samples, before any of them was refined."""
        at = torch.tensor(chosen, device=self.state.device)
        changed: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                changed[name] = value[at]
            elif isinstance(value, tuple) and value:
                changed[name] = tuple(value[number] for number in chosen)
        return replace(self, **changed)

    def advance(self, state: Float[Tensor, "batch variable z x"], forest: Forest | None = None) -> FlowPart | None:
        """Returns the part after its next step, standing on a state; None after the last step."""
        if self.steps.shape[1] == 1:
            return None
        return replace(
            self,
            state=state,
            previous=self.state,
            lead_time=self.next_lead_time,
            steps=self.steps[:, 1:],
            targets=None if self.targets is None else self.targets[:, 1:],
            forest=forest,
        )


@dataclass(frozen=True)
class FlowBatch:
    """Holds samples of one or several data sets; those of one have the same shape and stand together."""

    parts: Mapping[str, FlowPart] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        return sum(len(part.state) for part in self.parts.values())

    @property
    def next_lead_time(self) -> Float[Tensor, "batch"]:
        """Returns the lead time of all samples after the next step, in hours as the suite counts."""
        return torch.cat([part.next_lead_time for part in self.parts.values()]) / 3600

    def with_steps(self, hours: Sequence[float]) -> FlowBatch:
        """Returns the same states with other steps ahead and without targets."""

        def stepping(part: FlowPart) -> FlowPart:
            steps = torch.tensor([[3600 * step for step in hours]], dtype=part.steps.dtype, device=part.steps.device)
            return replace(part, steps=steps.expand(len(part.state), -1), targets=None)

        return FlowBatch({name: stepping(part) for name, part in self.parts.items()})

    def to(self, device: torch.device | str) -> FlowBatch:
        moved = {}
        for name, part in self.parts.items():
            tensors = {f.name: getattr(part, f.name) for f in fields(part)}
            on_device: dict[str, Any] = {
                k: v.to(device, non_blocking=True) for k, v in tensors.items() if isinstance(v, Tensor)
            }
            moved[name] = replace(part, **on_device)
        return FlowBatch(moved)


def collate(samples: Sequence[FlowSample]) -> FlowBatch:
    """Gathers samples with the same number of steps into a batch at lead time zero."""
    by_name: dict[str, list[FlowSample]] = {}
    for sample in samples:
        by_name.setdefault(sample.start.data_set, []).append(sample)
    return FlowBatch({name: _part(group) for name, group in by_name.items()})


def _part(samples: Sequence[FlowSample]) -> FlowPart:
    def stacked(name: str) -> Shaped[Tensor, "batch ..."] | None:
        values = [getattr(sample, name) for sample in samples]
        return None if values[0] is None else torch.stack(values)

    state = torch.stack([sample.state for sample in samples])
    return FlowPart(
        state=state,
        previous=torch.stack([sample.previous for sample in samples]),
        initial=state,
        lead_time=torch.zeros(len(samples), dtype=torch.float64),
        steps=torch.tensor([sample.steps for sample in samples], dtype=torch.float64),
        targets=stacked("targets"),
        fluid=stacked("fluid"),
        profiles=stacked("profiles"),
        constants=stacked("constants"),
        steady=stacked("steady"),
        flows=tuple(sample.flow for sample in samples),
        starts=tuple(sample.start for sample in samples),
        pushforward_steps=tuple(sample.pushforward_steps for sample in samples),
    )
