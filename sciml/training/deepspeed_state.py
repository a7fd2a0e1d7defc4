"""Finds by the names of parameters what DeepSpeed's ZeRO shards: gradients, weights and optimizer tensors.

It flattens all parameters of an optimizer group into one vector, cuts that over the data-parallel ranks (stages 1
and 2), or cuts every flattened parameter (stage 3). Checkpoints hold parameters cut along their first dim instead,
as torch's own sharding does, so that both engines read both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sciml.distributed.axes import GRADIENTS, Role
from sciml.distributed.collectives import all_gather
from sciml.parallel.data import local
from sciml.parallel.model import ParallelModel
from sciml.parallel.placement import Fragment, Placement
from sciml.training.flat_parts import FlatParts
from sciml.training.optimizer import OptimizerSpec, state_of
from sciml.training.training_state import TrainingState


class ShardedState(TrainingState, ABC):
    """Holds a state whose optimizer tensors are sharded.

    Args:
        zero: DeepSpeed's optimizer.
        optimizer: torch's, which it runs on its flat vectors.
    """

    def __init__(self, zero: Any, model: ParallelModel, optimizer: torch.optim.Optimizer, spec: OptimizerSpec) -> None:
        super().__init__(model, optimizer, spec)
        self.zero = zero
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        self.names = {parameter: name for name, parameter in self.parameters.items()}
        # Checkpoints are cut over the data axis alone: ranks that share tokens hold the same.
        rows = {Role.DATA: 0} if self.mesh.size(Role.DATA) > 1 else {}
        self.stored_as = {name: replace(p, cuts={**p.cuts, **rows}) for name, p in model.placements.items()}
        self.flat: dict[nn.Parameter, Tensor] = {}
        self.keys: dict[nn.Parameter, list[str]] = {}
        for number, members in enumerate(self.groups()):
            for parameter in members:
                vector = self.flat[parameter] = self.vector(number)
                rule = spec.rule(model.placements[self.names[parameter]])
                # The optimizer's tensors are there from the start, so that they can be loaded.
                self.keys[parameter] = list(state_of(optimizer, vector, rule))
        if spec.needs_whole_matrices:
            self._announce_fragments()

    @abstractmethod
    def groups(self) -> Sequence[Sequence[Any]]:
        """Returns the parameters of each vector."""

    @abstractmethod
    def vector(self, number: int) -> Float[Tensor, "element"]:
        """Returns a vector, of which the optimizer updates this rank's part."""

    @abstractmethod
    def gradients(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the gradients, by parameter, between the backward pass and the step."""

    @abstractmethod
    def fragments(self, number: int) -> list[Fragment]:
        """Returns what a vector holds of whole parameters."""

    @abstractmethod
    def optimizer_group(self, number: int) -> int:
        """Returns the number of the optimizer's group that a vector belongs to."""

    @abstractmethod
    def set_moment(self, name: str, key: str, stored: Float[Tensor, "..."]) -> None:
        """Takes over one of the optimizer's tensors."""

    def _announce_fragments(self) -> None:
        """Lets the optimizer know what its vectors hold of whole parameters."""
        for group in self.optimizer.param_groups:
            group["fragments"] = {}
        for number, _ in enumerate(self.groups()):
            group = self.optimizer.param_groups[self.optimizer_group(number)]
            group["fragments"][self.vector(number)] = self.fragments(number)

    def _gradients(self, groups: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
        gradients: dict[str, Tensor] = {}
        for number, group in enumerate(groups):
            parts = self.zero.averaged_gradients.get(number) or ()
            gradients |= {self.names[parameter]: part for parameter, part in zip(group, parts, strict=False)}
        return gradients

    def moments(self) -> dict[str, Tensor]:
        """Returns the optimizer's tensors as they go into a checkpoint."""
        from deepspeed.utils import safe_get_full_optimizer_state

        moments = {}
        for name, parameter in self.parameters.items():
            vector = self.flat[parameter]
            for key in self.keys[parameter]:
                value = self.optimizer.state[vector][key]
                if value.shape == vector.shape:
                    value = self.cut(name, safe_get_full_optimizer_state(parameter, key))
                moments[f"optim.{name}.{key}"] = value
        return moments

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the optimizer's tensors, as far as there are any, and the weights that have been loaded."""
        for name, parameter in self.parameters.items():
            vector = self.flat[parameter]
            for key in self.keys[parameter]:
                own, stored = self.optimizer.state[vector][key], state.get(f"optim.{name}.{key}")
                if stored is None:
                    continue
                if own.shape == vector.shape:
                    self.set_moment(name, key, stored)
                else:
                    own.copy_(local(stored))
        self.zero.refresh_fp32_params()

    def cut(self, name: str, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns this rank's rows of what data-parallel ranks each have whole, as they go into a checkpoint."""
        if self.mesh.size(Role.DATA) > 1:
            value = value[self._rows(len(value))].clone()
        return self.stored_as[name].distributed(value)

    def joined(self, name: str, stored: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns whole what :meth:`cut` gave the rows of."""
        part = local(stored)
        if self.mesh.size(Role.DATA) == 1:
            return part
        whole = part.new_zeros(self.model.placements[name].part_shape)
        whole[self._rows(len(whole))] = part
        dist.all_reduce(whole, group=self.mesh.group(Role.DATA))
        return whole

    def _rows(self, length: int) -> slice:
        """Returns this rank's rows, as torch.chunk cuts them."""
        return Placement(self.mesh, (length,), {Role.DATA: 0}).region[0]


class ShardedOptimizer(ShardedState):
    """Holds the state under stages 1 and 2, which flatten all parameters of a group and cut the vector over ranks."""

    def __init__(self, zero: Any, model: ParallelModel, optimizer: torch.optim.Optimizer, spec: OptimizerSpec) -> None:
        super().__init__(zero, model, optimizer, spec)
        zero._lazy_init_hp_params_optimizer_state()

    def groups(self) -> Sequence[Sequence[Any]]:
        """Returns the parameters of each vector."""
        return self.zero.bit16_groups

    def vector(self, number: int) -> Float[Tensor, "element"]:
        """Returns a vector, of which the optimizer updates this rank's part."""
        return self.zero.single_partition_of_fp32_groups[number]

    def gradients(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the gradients, by parameter, between the backward pass and the step."""
        return self._gradients(self.zero.params_in_partition)

    def fragments(self, number: int) -> list[Fragment]:
        """Returns what a vector holds of whole parameters."""
        size, start = self.vector(number).numel(), self.zero.bit16_groups_flat[number].storage_offset()
        fragments = []
        for parameter in self.groups()[number]:
            shift = parameter.storage_offset() - start
            first = max(0, shift - self.mesh.rank(*GRADIENTS) * size)
            fragments.append(Fragment(first, FlatParts(self.model.placements[self.names[parameter]], size, shift)))
        return fragments

    def optimizer_group(self, number: int) -> int:
        """Returns the number of the optimizer's group that a vector belongs to."""
        return number

    def set_moment(self, name: str, key: str, stored: Float[Tensor, "..."]) -> None:
        """Takes over one of the optimizer's tensors."""
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(self.parameters[name], self.joined(name, stored), key)


class ShardedWeights(ShardedState):
    """Holds the state under stage 3, which cuts every flattened parameter over ranks."""

    def groups(self) -> Sequence[Sequence[Any]]:
        """Returns the parameters of each vector."""
        return self.zero.fp16_groups

    def vector(self, number: int) -> Float[Tensor, "element"]:
        """Returns a vector, of which the optimizer updates this rank's part."""
        return self.zero.fp32_partitioned_groups_flat[number]

    def gradients(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the gradients, by parameter, between the backward pass and the step."""
        return self._gradients(self.groups())

    def fragments(self, number: int) -> list[Fragment]:
        """Returns what a vector holds of whole parameters."""
        fragments, first = [], 0
        for parameter in self.groups()[number]:
            size = parameter.ds_tensor.numel()
            fragments.append(Fragment(first, FlatParts(self.model.placements[self.names[parameter]], size)))
            first += size
        return fragments

    def optimizer_group(self, number: int) -> int:
        """Returns the number of the optimizer's group that a vector belongs to."""
        return self.zero.sub_group_to_group_id[number]

    def set_moment(self, name: str, key: str, stored: Float[Tensor, "..."]) -> None:
        """Takes over one of the optimizer's tensors."""
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(self.parameters[name], self.part(name, stored), key)

    def weights(self) -> dict[str, Tensor]:
        """Returns this rank's parts of the weights: of every parameter a piece of the flattened whole."""
        return {name: parameter.ds_tensor.data for name, parameter in self.parameters.items()}  # type: ignore[attr-defined]

    def stored(self, name: str, tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns a tensor like this rank's part of a parameter as it goes into a checkpoint."""
        parameter: Any = self.parameters[name]
        if tensor.shape != parameter.ds_tensor.shape:
            return tensor
        pieces = all_gather(tensor, 0, parameter.ds_process_group)
        return self.cut(name, pieces[: parameter.ds_numel].view(parameter.ds_shape))

    def part(self, name: str, stored: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Returns this rank's part of what :meth:`stored` gave."""
        parameter: Any = self.parameters[name]
        size, rank = parameter.ds_tensor.numel(), dist.get_rank(parameter.ds_process_group)
        piece = local(stored).new_zeros(size)
        mine = self.joined(name, stored).flatten()[rank * size : (rank + 1) * size]
        piece[: len(mine)] = mine
        return piece


STATES: Mapping[int, type[ShardedState]] = {1: ShardedOptimizer, 2: ShardedOptimizer, 3: ShardedWeights}
"""By stage of ZeRO."""
