"""The graph network cut over ranks gives the energies, forces, stresses and gradients of one process."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.protocol import LossOutput
from sciml.models.gnn import FORCE_LAYERS, GNN, GNNConfig
from sciml.nn.low_rank import add_low_rank
from sciml.parallel.config import ParallelConfig
from sciml.parallel.data import keep_whole, local
from sciml.parallel.degrees import check_cut
from sciml.parallel.model import parallelize
from sciml.parallel.plan import ShardingPlan, Style
from sciml.training.engine import NativeEngine
from tests.atoms import Atoms, EnergyModel, crystal, molecule
from tests.distributed.cases import OPTIMIZERS, away_from_zero

CONFIG = GNNConfig(num_channels=8, num_layers=3, cutoff=3.0, num_radial=4)


class Potential(EnergyModel):
    """As a domain has it: the network inside a model, with the plan of both; float64 from the first value on."""

    plan: ClassVar[ShardingPlan] = GNN.plan.within("encoder") | ShardingPlan({"read": Style.REPLICATE})

    def __init__(self, layer: str) -> None:
        name, _, rank = layer.partition("-lora")
        super().__init__(GNNConfig(**{**vars(CONFIG), "layer": name}))
        add_low_rank(self, int(rank or 0))
        self.double()


def energy_forces_virial(model: nn.Module, atoms: Atoms) -> tuple[Tensor, Tensor, Tensor]:
    """With graphs, so that a loss of them can be differentiated."""
    x, strain = atoms.positions.clone().requires_grad_(), torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    energy = model(atoms, atoms.edge_vectors(x, strain)).sum()
    gradient, virial = torch.autograd.grad(energy, (x, strain), create_graph=True)
    return energy, -gradient, virial


class ForceTask:
    """A loss of energy, forces and virial."""

    needs_double_backward = True

    def loss(self, model: Any, batch: Atoms) -> LossOutput:
        energy, forces, virial = energy_forces_virial(model, batch)
        loss = energy.square() + (forces - 0.3).square().sum() + (virial - 0.1).square().mean()
        return LossOutput(loss / len(batch.positions), {}, weight=len(batch.positions))


def batches(step: int) -> list[Atoms]:
    """Two batches of unequal size."""
    return [crystal(seed=step) + molecule(seed=step), molecule(4, seed=step + 50) + crystal(seed=step + 70)]


def outputs_and_gradients(world: World, layer: str, degrees: dict[str, Any]) -> dict[str, Tensor]:
    """What a mesh computes of one batch: outputs, and whole gradients of a loss of forces by parameter."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    model = parallelize(lambda: Potential(layer), mesh, config, seed=3, start=away_from_zero)
    energy, forces, virial = energy_forces_virial(model.module, batches(0)[0])
    found = {"energy": energy, "forces": forces, "virial": virial}
    keep_whole(model.roots, True)
    ForceTask().loss(model.module, batches(0)[0]).loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = local(parameter.grad)
        if name in model.partial_sums:
            mesh.add([gradient], "tp")
        if name in model.cut_dims:
            parts = [torch.zeros_like(gradient) for _ in range(mesh.size("tp"))]
            torch.distributed.all_gather(parts, gradient.contiguous(), group=mesh.group("tp"))
            gradient = torch.cat(parts, model.cut_dims[name])
        found[name] = gradient
    return {name: value.detach() for name, value in found.items()}


def trained(world: World, layer: str, degrees: dict[str, Any], steps: int = 4) -> Tensor:
    """Losses and gradient norms of some steps, batches shared by the ranks that share data."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    model = parallelize(lambda: Potential(layer), mesh, config, seed=3, start=away_from_zero)
    engine, found = NativeEngine(model, OPTIMIZERS["adamw"]), []
    for step in range(steps):
        mine = batches(step)[mesh.data_rank :: mesh.num_data_ranks]
        output = engine.train_step(ForceTask(), mine, 1e-3)
        found.append((output.loss, output.grad_norm))
    return torch.tensor(found, dtype=torch.float64)


@lru_cache
def alone(function: Any, layer: str) -> Any:
    return function(World(0, 1, torch.device("cpu")), layer, {})


def marked(layer: str, degrees: dict[str, Any]) -> Any:
    fast = layer == "painn" and degrees in ({"tp": 2}, {"shard": 2, "zero": 2})
    name = "-".join(f"{axis}{size}" for axis, size in degrees.items())
    return pytest.param(layer, degrees, id=f"{layer}-{name}", marks=[] if fast else [pytest.mark.slow])


@pytest.mark.parametrize("tp", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", [*FORCE_LAYERS, "painn-lora2"])
def test_channels_cut_over_ranks_give_the_same(ranks, layer, tp):
    expected = alone(outputs_and_gradients, layer)
    for found in ranks(tp).run(outputs_and_gradients, layer, {"tp": tp}):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert value.abs().max() > 0, name
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("layer", "degrees"),
    [
        marked(layer, degrees)
        for layer in FORCE_LAYERS
        for degrees in (
            {"tp": 2},
            {"dp": 2},
            {"shard": 2, "zero": 1},
            {"shard": 2, "zero": 2},
            {"shard": 2, "zero": 3},
            {"tp": 2, "shard": 2, "zero": 2},
        )
    ],
)
def test_training_on_forces_is_that_of_one_process(ranks, layer, degrees):
    size = 1
    for axis in ("dp", "shard", "tp"):
        size *= degrees.get(axis, 1)
    for found in ranks(size).run(trained, layer, degrees):
        torch.testing.assert_close(found, alone(trained, layer), rtol=1e-10, atol=1e-12)


def test_a_degree_that_does_not_divide_channels_is_refused():
    with pytest.raises(ConfigError, match=r"parallel\.tp: 3 ranks cannot share .*degrees that work: 1, 2, 4, 8"):
        check_cut(Potential.plan, Potential("painn"), matrices=3)


@pytest.mark.parametrize("layer", ["pna", "gps"])
def test_property_layers_are_not_cut(layer):
    with torch.device("meta"):
        model = Potential(layer)
    with pytest.raises(ConfigError, match=r"parallel\.tp: this model has nothing that tensor parallelism cuts; use 1"):
        check_cut(Potential.plan, model, matrices=2)
