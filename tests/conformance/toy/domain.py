"""Blobs that drift around a ring of 16 points: a whole domain in one file, with no edit inside sciml."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from sciml.core.types import AtLeastOne
from sciml.domain.protocol import FittedData, LossOutput, NamedFigure, Prediction, Splits
from sciml.domain.score import Baseline, Metric
from sciml.forecast.lead_time_sums import LeadTimeSums
from sciml.models.vit import ViT, ViTConfig
from sciml.nn.initialization import Normal, starts_as

SIZE, SHIFT = 16, 3
CORRELATION = Metric("correlation", "correlation", better="higher", perfect=1.0, unit="1")
RMSE = Metric("rmse", reduce=math.sqrt)
STANDING_STILL = Baseline("standing_still", "#2f6f4f", "h")


@dataclass(frozen=True)
class ToyData:
    num_samples: int = 64


@dataclass(frozen=True)
class ToyTask:
    num_steps: int = 1


@dataclass(frozen=True)
class Ring:
    """Schema and statistics at once: nothing but the number of points."""

    size: int = SIZE

    def to_dict(self):
        return {"size": self.size}

    def to_tensors(self):
        return {"size": torch.tensor(self.size)}


@dataclass(frozen=True)
class RingBatch:
    state: torch.Tensor  # (batch, point)
    targets: torch.Tensor  # (batch, step, point)
    lead: int = 0

    @property
    def num_samples(self):
        return len(self.state)

    def to(self, device):
        return replace(self, state=self.state.to(device), targets=self.targets.to(device))


@dataclass(frozen=True)
class RingSource:
    first: int
    count: int
    num_steps: int

    def __len__(self):
        return self.count

    def sample(self, index, generator):
        center = np.random.default_rng(self.first + index).uniform(0, SIZE)
        distance = np.minimum((np.arange(SIZE) - center) % SIZE, (center - np.arange(SIZE)) % SIZE)
        state = torch.tensor(np.exp(-(distance**2) / 4), dtype=torch.float32)
        return torch.stack([state.roll(SHIFT * n) for n in range(self.num_steps + 1)])

    def collate(self, samples):
        states = torch.stack(samples)
        return RingBatch(states[:, 0], states[:, 1:])


class RingModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed = nn.Linear(1, config.embed_dim)
        self.position = nn.Parameter(torch.empty(SIZE, config.embed_dim))
        starts_as(self, position=Normal(0.1))
        self.trunk = ViT(config)
        self.head = nn.Linear(config.embed_dim, 1)

    def forward(self, state):
        return state + self.head(self.trunk(self.embed(state[..., None]) + self.position))[..., 0]


@dataclass(frozen=True)
class WindowConfig:
    kind: str = "window"
    width: AtLeastOne = 3


class WindowModel(nn.Module):
    """A reference model of another kind: the next state from a window of points."""

    def __init__(self, config):
        super().__init__()
        self.width = config.width
        self.linear = nn.Linear(2 * config.width + 1, 1)

    def forward(self, state):
        around = nn.functional.pad(state[:, None], (self.width, self.width), mode="circular")[:, 0]
        return self.linear(around.unfold(1, 2 * self.width + 1, 1))[..., 0]


class RingMetrics:
    def __init__(self, num_steps):
        hours = range(1, num_steps + 1)
        self.table = LeadTimeSums((CORRELATION, RMSE), hours, {"height": "m"})

    def update(self, prediction, batch):
        state, target = prediction.values["state"], batch.targets[:, 0]
        lead, _ = self.table.scored(torch.full((batch.num_samples,), batch.lead + 1.0))
        centered = [fields - fields.mean(dim=1, keepdim=True) for fields in (state, target)]
        self.table.add(CORRELATION, lead, torch.cosine_similarity(*centered, dim=1)[:, None])
        self.table.add(RMSE, lead, (state - target).square().mean(dim=1, keepdim=True))

    def sums(self):
        return self.table.sums()

    def compute(self):
        return list(self.table.scores())


@dataclass
class RingTask:
    num_steps: int
    needs_double_backward = False

    def to(self, device):
        return self

    def loss(self, model, batch):
        return LossOutput((model(batch.state) - batch.targets[:, 0]).square().mean(), weight=batch.num_samples)

    def predict(self, model, batch):
        return Prediction({"state": model(batch.state)})

    def advance(self, batch, prediction):
        if batch.targets.shape[1] == 1:
            return None
        return RingBatch(prediction.values["state"], batch.targets[:, 1:], batch.lead + 1)

    def metrics(self):
        return RingMetrics(self.num_steps)

    def baselines(self):
        return {STANDING_STILL: lambda batch: Prediction({"state": batch.state})}


class ToyDomain:
    name, model_kinds = "toy", {"vit": ViTConfig, "window": WindowConfig}
    data_config, task_config = ToyData, ToyTask
    baselines = (STANDING_STILL,)

    def check(self, spec):
        pass

    def splits(self, spec, fitted=None):
        count, steps = spec.data.num_samples, spec.task.num_steps
        train, valid, test = (RingSource(n * count, count, steps) for n in range(3))
        return Splits(train, valid, test, Ring(), Ring())

    def model(self, spec, schema):
        return WindowModel(spec.model) if spec.model.kind == "window" else RingModel(spec.model)

    def task(self, spec, splits):
        return RingTask(spec.task.num_steps)

    def restore(self, schema, statistics):
        return FittedData(Ring(schema["size"]), Ring(int(statistics["size"])))

    def example(self, task, model, splits):
        batch = splits.test.collate([splits.test.sample(0, None)])
        with torch.no_grad():
            return {"state": batch.state[0].numpy(), "forecast": model(batch.state)[0].numpy()}

    def figures(self, result):
        def render(stem):
            from matplotlib.figure import Figure

            figure = Figure()
            figure.subplots().plot(result.example["forecast"])
            figure.savefig(stem.with_suffix(".png"))
            return stem.with_suffix(".png")

        yield NamedFigure("ring", "One step around the ring", "The forecast blob.", render)
