"""What DeepSpeed's ZeRO shards, by the names of parameters: gradients, weights and optimizer moments.

It flattens all parameters of an optimizer group into one vector, cuts that over the data-parallel ranks (stages 1
and 2), or cuts every flattened parameter (stage 3). Checkpoints hold parameters cut along their first dim instead,
as torch's own sharding does, so that both engines read both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sciml.distributed.axes import Role
from sciml.distributed.collectives import all_gather
from sciml.parallel.data import local
from sciml.parallel.model import ParallelModel
from sciml.parallel.placement import Placement
from sciml.training.optimizer import OptimizerSpec, state_of


class ShardedState:
    """The sharded part of a training's state.

    Args:
        zero: DeepSpeed's optimizer.
        optimizer: torch's, which it runs on its flat vectors.
        spec: what there is to know of that.
        stage: of ZeRO.
    """

    def __init__(
        self, zero: Any, optimizer: torch.optim.Optimizer, spec: OptimizerSpec, model: ParallelModel, stage: int
    ) -> None:
        self.zero, self.optimizer, self.model, self.stage = zero, optimizer, model, stage
        self.mesh = model.mesh
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        # Checkpoints are cut over the data axis alone: ranks that share tokens hold the same.
        rows = {Role.DATA: 0} if self.mesh.size(Role.DATA) > 1 else {}
        self.stored_as = {name: replace(p, cuts={**p.cuts, **rows}) for name, p in model.placements.items()}
        groups = zero.fp16_groups if stage == 3 else zero.bit16_groups
        flat = zero.fp32_partitioned_groups_flat if stage == 3 else zero.single_partition_of_fp32_groups
        self.flat = {parameter: flat[i] for i, group in enumerate(groups) for parameter in group}
        # The moments are there from the start, so that they can be loaded.
        self.keys: dict[nn.Parameter, list[str]] = {}
        for name, parameter in self.parameters.items():
            rule = spec.rule(model.placements[name])
            self.keys[parameter] = list(state_of(optimizer, self.flat[parameter], rule))
        if stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    def gradients(self) -> dict[str, Tensor]:
        """This rank's parts of the gradients, by parameter, between the backward pass and the step."""
        names = {parameter: name for name, parameter in self.parameters.items()}
        groups = self.zero.fp16_groups if self.stage == 3 else self.zero.params_in_partition
        found: dict[str, Tensor] = {}
        for number, group in enumerate(groups):
            parts = self.zero.averaged_gradients.get(number) or ()
            found |= {names[parameter]: part for parameter, part in zip(group, parts, strict=False)}
        return found

    def weights(self) -> dict[str, Tensor]:
        """This rank's parts of the weights under stage 3: of every parameter a piece of the flattened whole."""
        return {name: parameter.ds_tensor.data for name, parameter in self.parameters.items()}  # type: ignore[attr-defined]

    def stored(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor like a weight's part under stage 3, as it goes into a checkpoint."""
        parameter: Any = self.parameters[name]
        if tensor.shape != parameter.ds_tensor.shape:
            return tensor
        pieces = all_gather(tensor, 0, parameter.ds_process_group)
        return self._cut(name, pieces[: parameter.ds_numel].view(parameter.ds_shape))

    def part(self, name: str, stored: Tensor) -> Tensor:
        """The way back from :meth:`stored`."""
        parameter: Any = self.parameters[name]
        return self._piece(parameter, self._whole(name, stored))

    def _piece(self, parameter: Any, whole: Tensor) -> Tensor:
        size, rank = parameter.ds_tensor.numel(), dist.get_rank(parameter.ds_process_group)
        piece = whole.new_zeros(size)
        mine = whole.flatten()[rank * size : (rank + 1) * size]
        piece[: len(mine)] = mine
        return piece

    def moments(self) -> dict[str, Tensor]:
        """The optimizer's tensors, as they go into a checkpoint."""
        from deepspeed.utils import safe_get_full_optimizer_state

        found = {}
        for name, parameter in self.parameters.items():
            vector = self.flat[parameter]
            for key in self.keys[parameter]:
                value = self.optimizer.state[vector][key]
                if value.shape == vector.shape:
                    value = self._cut(name, safe_get_full_optimizer_state(parameter, key))
                found[f"optim.{name}.{key}"] = value
        return found

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the optimizer's tensors, and the weights that have been loaded, for the next steps."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        for name, parameter in self.parameters.items():
            vector = self.flat[parameter]
            for key in self.keys[parameter]:
                own, stored = self.optimizer.state[vector][key], state[f"optim.{name}.{key}"]
                if own.shape != vector.shape:
                    own.copy_(local(stored))
                elif self.stage == 3:
                    safe_set_local_optimizer_state(parameter, self.part(name, stored), key)
                else:
                    safe_set_full_optimizer_state(parameter, self._whole(name, stored), key)
        self.zero.refresh_fp32_params()

    def _cut(self, name: str, value: Tensor) -> Tensor:
        """This rank's rows of what data-parallel ranks each have whole, as they go into a checkpoint."""
        if self.mesh.size(Role.DATA) > 1:
            value = value[self._rows(len(value))].clone()
        return self.stored_as[name].distributed(value)

    def _whole(self, name: str, stored: Tensor) -> Tensor:
        """The way back from :meth:`_cut`."""
        part = local(stored)
        if self.mesh.size(Role.DATA) == 1:
            return part
        parameter: Any = self.parameters[name]
        whole = part.new_zeros(parameter.ds_shape if self.stage == 3 else parameter.shape)
        whole[self._rows(len(whole))] = part
        dist.all_reduce(whole, group=self.mesh.group(Role.DATA))
        return whole

    def _rows(self, length: int) -> slice:
        """This rank's rows, as torch.chunk cuts them."""
        return Placement(self.mesh, (length,), {Role.DATA: 0}).region[0]
