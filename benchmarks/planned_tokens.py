"""Plans vit_1b on states of 0.25 degrees with 73 channels, without any data: in patches of 4, and cell by cell.

    python benchmarks/planned_tokens.py quarter    # 65,160 tokens that attend within windows, by a search
    python benchmarks/planned_tokens.py million    # 1,038,240 tokens that attend to all, by a ring of 8 x 8 devices

The second has narrow convolutions, since each rank computes those of whole samples.
"""

from __future__ import annotations

import sys
from functools import partial

import torch

from domains.climate.model.field_model import ClimateFieldModel
from sciml.core.config import build
from sciml.domain.protocol import LossOutput
from sciml.models.uvit import UViTConfig
from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import GB, ClusterConfig
from sciml.planning.model_facts import ModelFacts
from sciml.planning.search import Search
from sciml.planning.strategy import SearchConstraints, Strategy, TrainingSpec
from sciml.run.compose import compose

LATITUDE = tuple(90 - 0.25 * row for row in range(721))
LONGITUDE = tuple(0.25 * column for column in range(1440))
LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
CHANNELS = [f"{name}{level}" for name in "ztuvq" for level in LEVELS] + [
    "t2m", "u10", "v10", "msl", "sp", "tcwv", "d2m", "skt",
]  # fmt: skip
OPTIONS = {
    "quarter": ("model.patch_size=4", "model.attention=window", "model.window=[12,12]"),
    "million": ("model.patch_size=1", "model.square=1", "model.conv_width=64"),
}
MACHINES = {"quarter": (("h100", 8), ("frontier", 64)), "million": (("h100", 64), ("frontier", 64))}


def facts(case: str) -> ModelFacts:
    """Returns the facts of the model on one state."""
    arguments = ["domain=climate", "model=vit_1b", *OPTIONS[case]]
    config = build(UViTConfig, compose("train", arguments).config["model"], prefix="model")
    make = partial(ClimateFieldModel, config, CHANNELS, latitude=LATITUDE, longitude=LONGITUDE)

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> LossOutput:
        hours = torch.zeros(len(batch["state"]))
        return LossOutput((model(batch["state"], None, hours, hours) - batch["target"]).square().mean())

    def batch(samples: int) -> dict[str, torch.Tensor]:
        fields = torch.zeros(1, 1, 1, 1).expand(samples, len(CHANNELS), len(LATITUDE), len(LONGITUDE))
        return {"state": fields, "target": fields}

    return ModelFacts(case, make, loss, batch)


def main(case: str) -> None:
    model = facts(case)
    print(f"{model.parameters / 1e9:.3f} B parameters, {model.tokens:,} tokens")
    for name, devices in MACHINES[case]:
        cluster = build(
            ClusterConfig, compose("launch", [f"cluster={name}", "launch=generic"]).config["cluster"], prefix="cluster"
        )
        samples = devices if case == "quarter" else 1
        search = Search(model, cluster, TrainingSpec(samples), SearchConstraints(), margin=0.05)
        if case == "quarter":
            strategies = [search.plan(devices).best.strategy]
        else:
            ring = ParallelConfig(dp=1, cp=8, sp=8)
            strategies = [Strategy(ring, 1, "bf16", recompute) for recompute in ("selective", "full")]
        for strategy in strategies:
            step, memory = search.throughput.of(strategy), search.memory.of(strategy)
            parts = "  ".join(f"{part} {seconds:.3g} s" for part, seconds in step.parts().items() if seconds)
            print(
                f"{devices} {name}: {strategy.text}, recompute {strategy.recompute}, {samples} samples a step: "
                f"{step.total:.3g} s, {memory.total / GB:.1f} of {cluster.memory / GB:.1f} GB; {parts}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1])
