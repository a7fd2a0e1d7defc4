"""Small models with tasks and data, and their training on any mesh: what parity is tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domains.climate.data.batch import FieldSample, collate
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.model.climax import ClimaX, ClimaXConfig
from domains.climate.model.field_model import ClimateFieldModel
from domains.climate.model.forecaster import ClimateViT
from domains.climate.model.horizon import HorizonConfig
from domains.climate.model.loss import LossConfig
from domains.climate.model.task import ClimateTask
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.domain.optional import FollowsTraining
from sciml.domain.protocol import LossOutput
from sciml.models.gpt import GPT, GPTConfig
from sciml.models.uvit import UViTConfig
from sciml.models.vit import ViTConfig
from sciml.nn.low_rank import add_low_rank, freeze
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import ParallelModel, parallelize
from sciml.parallel.plan import CopyToRegion, ShardingPlan, Style
from sciml.training.config import OptimConfig
from sciml.training.engine import NativeEngine

GLOBAL_BATCH, MICRO_BATCH, STEPS = 8, 2, 3
LATITUDE = (75.0, 45.0, 15.0, -15.0, -45.0, -75.0)
CHANNELS = ("z500", "t850", "t2m")
LONGITUDE = tuple(36.0 * i for i in range(10))  # 3 x 5 patches: 15 tokens, which no degree divides
POLE_TO_POLE = tuple(90.0 - 11.25 * i for i in range(17))  # 9 rows of patches, which no degree divides


@dataclass
class Samples:
    """Inputs and targets, and the weight that a task gives them."""

    inputs: Tensor
    targets: Tensor

    def __getitem__(self, place: slice) -> Samples:
        return Samples(self.inputs[place], self.targets[place])


def vit() -> nn.Module:
    """A ClimateViT of four blocks with 15 tokens."""
    config = ViTConfig(embed_dim=16, depth=4, num_heads=4, patch_size=2, rotary_max_harmonic=2, condition_dim=8)
    return ClimateViT(config, ["a", "b", "c"], latitude=LATITUDE, longitude=LONGITUDE)


def vit_lora() -> nn.Module:
    """The same, with changes of low rank beside its matrices, and an embedding that stays."""
    model = vit()
    add_low_rank(model, 2)
    freeze(model, ["position.*"])
    return model


def uvit() -> nn.Module:
    """A UViT of four blocks with 15 tokens, whose convolutions weigh waves too."""
    config = UViTConfig(
        embed_dim=16, depth=4, num_heads=4, patch_size=2, square=1, conv_width=8, token_convs=1, modes=(2, 3),
        condition_dim=8, position_features=("latitude",), rotary_axes=("longitude",), rotary_max_harmonic=2,
    )  # fmt: skip
    return ClimateFieldModel(config, CHANNELS, latitude=LATITUDE, longitude=LONGITUDE)


def tiled_uvit() -> nn.Module:
    """The same, which sees the globe in two tiles."""
    config = replace(uvit().net.config, tiles=(1, 2), halo=1)
    return ClimateFieldModel(config, CHANNELS, latitude=LATITUDE, longitude=LONGITUDE)


def tall_uvit() -> nn.Module:
    """A UViT in float64 on a globe with rows on its poles, and enough rows of patches for four ranks to share."""
    where: dict[str, Any] = {"latitude": POLE_TO_POLE, "longitude": LONGITUDE}
    return ClimateFieldModel(uvit().net.config, CHANNELS, **where).double()


def vit_window() -> nn.Module:
    """A ClimateViT in float64 of four blocks, of which three attend within windows of several sizes, and over poles."""
    config = ViTConfig(
        embed_dim=16, depth=4, num_heads=4, patch_size=1, rotary_max_harmonic=2, condition_dim=8, num_kv_heads=4,
        attention="window", window=(4, 5), global_every=3,
    )  # fmt: skip
    return ClimateViT(config, ["a", "b", "c"], latitude=LATITUDE, longitude=LONGITUDE).double()


def climax() -> nn.Module:
    """A ClimaX of four blocks with 15 tokens."""
    config = ClimaXConfig(embed_dim=16, depth=4, num_heads=4, head_depth=1, dropout=0.0, drop_path=0.0)
    return ClimaX(config, ["a", "b", "c"], latitude=LATITUDE, longitude=LONGITUDE)


class FieldTask:
    """Regression of fields; samples weigh unequally, so that means over ranks must be exact."""

    needs_double_backward = False

    def loss(self, model: Callable[..., Tensor], batch: Samples) -> LossOutput:
        time = torch.arange(len(batch.inputs), dtype=torch.float32)
        error = (model(batch.inputs, None, 6 + time, time) - batch.targets).square().mean(dim=(1, 2, 3))
        weights = 1 + batch.inputs[:, 0, 0, 0].abs()
        loss = (error * weights).sum() / weights.sum()
        return LossOutput(loss, {"error": loss.detach()}, weight=weights.sum().item())


def fields(step: int, rows: int = len(LATITUDE)) -> Samples:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(GLOBAL_BATCH, 3, rows, 10, generator=generator)
    return Samples(inputs, inputs.roll(1, dims=3) * 0.5 + 1)


def random_uvit() -> nn.Module:
    """The UViT with noise in its conditioning."""
    config = uvit().net.config
    return ClimateFieldModel(config, CHANNELS, latitude=LATITUDE, longitude=LONGITUDE, noise_dim=4)


def vit_of_weather() -> nn.Module:
    """The ViT with the variables of the weather."""
    return ClimateViT(vit().config, CHANNELS, latitude=LATITUDE, longitude=LONGITUDE)


class WeatherTask:
    """The climate task on fields in standardized units, with members that differ by noise or over several steps."""

    needs_double_backward = False

    def __init__(self, loss: LossConfig, steps: int = 1, latitude: tuple[float, ...] = LATITUDE) -> None:
        ones = torch.ones(3)
        schema = ClimateSchema(CHANNELS, (), latitude, LONGITUDE, 12.0)
        statics = torch.empty(0, len(latitude), 10)
        statistics = ClimateStatistics(0 * ones, ones, torch.tensor([12.0]), ones[None], statics)
        self.steps, horizon = steps, HorizonConfig(rollout_steps=steps)
        self.task = ClimateTask(schema, statistics, score_lead_times=(), loss=loss, horizon=horizon)

    def loss(self, model: Callable[..., Tensor], batch: Samples) -> LossOutput:
        seeds = [round(1e6 * value) for value in batch.inputs[:, 0, 0, 0].abs().tolist()]
        targets, path = batch.targets[:, None].expand(-1, self.steps, -1, -1, -1), (12.0,) * self.steps
        samples = [FieldSample(x, 0.0, path, y, s) for x, y, s in zip(batch.inputs, targets, seeds, strict=True)]
        return self.task.loss(model, collate(samples))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


class Bonds(nn.Module):
    """The linears of a graph network: features of pairs of atoms to energies of atoms, two layers cut over ranks."""

    plan: ClassVar[ShardingPlan] = ShardingPlan(
        {
            "embed": Style.REPLICATE,
            "layers.*.up": Style.COLUMN,
            "layers.*.down": Style.ROW,
            "layers.*.norm": Style.REPLICATE,
            "read": Style.REPLICATE,
        },
        inputs={"layers.*.up": (CopyToRegion(),)},
    )

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"norm": nn.LayerNorm(8), "up": nn.Linear(8, 16), "down": nn.Linear(16, 8)}) for _ in range(2)
        )
        self.read = nn.Linear(8, 1)

    def forward(self, positions: Tensor) -> Tensor:
        """Energies (sample) of positions (sample, atom, 3)."""
        difference = positions[:, :, None] - positions[:, None]
        squares = difference.square().sum(-1, keepdim=True) + torch.eye(positions.shape[1]).to(positions)[..., None]
        centers = torch.linspace(0.5, 3.0, 6).to(positions)
        x = self.embed(torch.exp(-((squares.sqrt() - centers) ** 2)).sum(2))
        for layer in self.layers:
            x = x + layer["down"](F.silu(layer["up"](layer["norm"](x))))
        return self.read(x).sum(dim=(1, 2))


class ForceTask:
    """Energies and forces, which are gradients, so that the loss differentiates twice."""

    needs_double_backward = True

    def loss(self, model: Callable[..., Tensor], batch: Samples) -> LossOutput:
        positions = batch.inputs.clone().requires_grad_()
        energy = model(positions)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=True)
        loss = (gradient + batch.targets).square().mean() + (energy - batch.targets.sum(dim=(1, 2))).square().mean()
        return LossOutput(loss, {}, weight=len(positions))


class EnergyTask:
    """Energies alone."""

    needs_double_backward = False

    def loss(self, model: Callable[..., Tensor], batch: Samples) -> LossOutput:
        loss = (model(batch.inputs) - batch.targets.sum(dim=(1, 2))).square().mean()
        return LossOutput(loss, {}, weight=len(batch.inputs))


def atoms(step: int, dtype: torch.dtype = torch.float32) -> Samples:
    generator = torch.Generator().manual_seed(step)
    positions = torch.randn(GLOBAL_BATCH, 5, 3, generator=generator, dtype=torch.float64) * 1.5
    return Samples(positions.to(dtype), (torch.sin(positions) * 0.3).to(dtype))


def gpt(**changes: Any) -> nn.Module:
    """A GPT of four blocks in float64, with learned positions."""
    config = GPTConfig(embed_dim=16, depth=4, num_heads=4, positions="learned", context=15, vocabulary_size=24)
    return GPT(replace(config, **changes)).double()


class WordTask:
    """The next token; samples weigh unequally."""

    needs_double_backward = False

    def loss(self, model: Callable[..., Tensor], batch: Samples) -> LossOutput:
        nll = model(batch.inputs, batch.targets).mean(dim=1)
        weights = 1.0 + batch.inputs[:, 0]
        loss = (nll * weights).sum() / weights.sum()
        return LossOutput(loss, {"nll": nll.mean().detach()}, weight=weights.sum().item())


def words(step: int) -> Samples:
    """Fifteen tokens a sample, which no degree divides."""
    generator = torch.Generator().manual_seed(step)
    drawn = torch.randint(0, 24, (GLOBAL_BATCH, 16), generator=generator)
    return Samples(drawn[:, :-1], drawn[:, 1:])


@dataclass(frozen=True)
class Case:
    """A model, its task and its data."""

    build: Callable[[], nn.Module]
    task: Any
    samples: Callable[[int], Samples]


def _bonds64() -> nn.Module:
    return Bonds().double()


def _atoms64(step: int) -> Samples:
    return atoms(step, torch.float64)


def _fields64(step: int, rows: int = len(LATITUDE)) -> Samples:
    samples = fields(step, rows)
    return Samples(samples.inputs.double(), samples.targets.double())


CASES = {
    "vit": Case(vit, FieldTask(), fields),
    "vit-lora": Case(vit_lora, FieldTask(), fields),
    "vit-window": Case(vit_window, FieldTask(), _fields64),
    "climax": Case(climax, FieldTask(), fields),
    "uvit": Case(uvit, FieldTask(), fields),
    "uvit-rows": Case(tall_uvit, FieldTask(), partial(_fields64, rows=len(POLE_TO_POLE))),
    "rows-rollout": Case(
        tall_uvit, WeatherTask(LossConfig(), 2, POLE_TO_POLE), partial(_fields64, rows=len(POLE_TO_POLE))
    ),
    "uvit-tiles": Case(tiled_uvit, FieldTask(), fields),
    "crps": Case(
        random_uvit, WeatherTask(LossConfig(loss="crps", noise_dim=4, spectral_weight=0.5, mean_first=0.5)), fields
    ),
    "rollout": Case(uvit, WeatherTask(LossConfig(), steps=2), fields),
    "vit-rollout": Case(vit_of_weather, WeatherTask(LossConfig(), steps=2), fields),
    "bonds": Case(Bonds, EnergyTask(), atoms),
    "forces": Case(_bonds64, ForceTask(), _atoms64),
    "gpt": Case(gpt, WordTask(), words),
    "gpt-untied": Case(partial(gpt, tied_embedding=False, positions="rotary", qk_norm="rms"), WordTask(), words),
}
OPTIMIZERS = {
    "adamw": OptimConfig(name="adamw", lr=1e-3, clip_norm=None, ema_decay=None),
    "muon": OptimConfig(name="muon", lr=1e-3, momentum=0.9, clip_norm=None, ema_decay=None),
    "sgd": OptimConfig(name="sgd", lr=1e-2, clip_norm=0.05, ema_decay=None),
}


def away_from_zero(name: str, drawn: Tensor) -> Tensor:
    """Starts no parameter at zero, where a wrong gradient may go unseen."""
    generator = torch.Generator().manual_seed(len(name))
    return drawn + 0.05 * torch.randn(drawn.shape, generator=generator, dtype=torch.float64).to(drawn.dtype)


def build(case: str, mesh: Mesh, config: ParallelConfig) -> ParallelModel:
    return parallelize(CASES[case].build, mesh, config, seed=3, start=away_from_zero)


def share(samples: Samples, mesh: Mesh) -> list[Samples]:
    """This rank's micro-batches of a global batch."""
    size = GLOBAL_BATCH // mesh.num_data_ranks
    first = mesh.data_rank * size
    micro = min(MICRO_BATCH, size)
    return [samples[start : start + micro] for start in range(first, first + size, micro)]


def train(world: World, case: str, degrees: dict[str, Any], optimizer: str, steps: int = STEPS) -> Sequence[Any]:
    """Losses and gradient norms of some steps on a mesh."""
    config = ParallelConfig(**degrees)
    mesh = Mesh(world, config.degrees(world.size))
    engine = NativeEngine(build(case, mesh, config), OPTIMIZERS[optimizer])
    return run_steps(engine, case, mesh, optimizer, range(steps))


def run_steps(engine: Any, case: str, mesh: Mesh, optimizer: str, steps: range) -> list[tuple[float, float]]:
    found = []
    for step in steps:
        batches = share(CASES[case].samples(step), mesh)
        if isinstance(CASES[case].task, FollowsTraining):
            CASES[case].task.at_step(step, steps.stop)
        output = engine.train_step(CASES[case].task, batches, OPTIMIZERS[optimizer].lr)
        found.append((output.loss, output.grad_norm))
    return found
