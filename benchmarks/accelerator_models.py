"""The items of ``accelerator.py`` that compare models with their plans: time, memory, and the device's efficiency."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from accelerator_setting import PLAIN, Result, Setting

from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.parallel.config import ParallelConfig
from sciml.planning.cluster import GB, ClusterConfig, Efficiency
from sciml.planning.cluster_here import TERA
from sciml.planning.memory import MemoryModel
from sciml.planning.strategy import Strategy, TrainingSpec
from sciml.planning.throughput import ThroughputModel
from sciml.run.compose import compose
from sciml.run.costs import measure_in_turn, training_step
from sciml.run.flops import model_facts
from sciml.run.spec import RunSpec, planned_data
from sciml.training.device_memory import memory_in_use

MODELS = {
    "vit_115m": (256, ("domain=climate", "model=vit_115m")),
    "vit_1b": (128, ("domain=climate", "model=vit_1b")),
    "gpt_1b": (4, ("domain=language", "model=gpt_small", "model.embed_dim=2048", "model.depth=20", "model.num_heads=16",
                   "data.context=2048")),
    "gnn_large": (64, ("domain=materials", "model=gnn_large")),
}  # fmt: skip
SMALL_MODELS = {
    "vit_115m": (2, ("domain=climate", "model=vit_tiny")),
    "vit_1b": (1, ("domain=climate", "model=vit_small")),
    "gpt_1b": (2, ("domain=language", "model=gpt_small")),
    "gnn_large": (2, ("domain=materials", "model=gnn_small")),
}
MEASURED_ROUNDS = {"full": 8, "small": 2}


@dataclass(frozen=True)
class Planned:
    """Holds a model's training, and how it is planned for the device."""

    spec: RunSpec
    strategy: Strategy
    memory: MemoryModel

    @classmethod
    def of(cls, name: str, batch: int, arguments: tuple[str, ...], cluster: ClusterConfig) -> Planned:
        words = [*arguments, *PLAIN, f"trainer.global_batch_size={batch}", "trainer.precision=bf16", "optim=adamw"]
        spec, splits = planned_data(RunSpec.build(compose("train", words).config))
        facts = model_facts(spec, splits, as_accelerator=cluster.device == "accelerator")
        recompute = getattr(spec.model, "recompute", "none")
        strategy = Strategy(ParallelConfig(dp=1), batch, "bf16", recompute, spec.engine)
        return cls(spec, strategy, MemoryModel(facts, cluster, TrainingSpec.of(spec.trainer, spec.optim)))

    @property
    def flops(self) -> float:
        """Returns the FLOPs of a step, without what is recomputed."""
        return sum(self.memory.facts.sample_flops()) * self.strategy.micro_batch

    def seconds(self, efficiency: Efficiency | None = None) -> float:
        """Predicts a step."""
        memory = self.memory
        model = ThroughputModel(memory.facts, memory.cluster, memory.training, efficiency or Efficiency(), memory)
        return model.of(self.strategy).total


def planned_model(name: str, setting: Setting) -> Planned:
    """Plans a model with the largest batch that fits the device by the plan."""
    batch, arguments = (MODELS if setting.size == "full" else SMALL_MODELS)[name]
    while True:
        planned = Planned.of(name, batch, arguments, setting.cluster)
        if batch == 1 or planned.memory.of(planned.strategy).total < 0.85 * setting.cluster.memory:
            return planned
        batch //= 2


def utilization(name: str, setting: Setting) -> Result:
    """Measures the trainer's step of a model in bfloat16 beside its plan: time, MFU and memory."""
    planned = planned_model(name, setting)
    cluster, spec = setting.cluster, planned.spec
    splits = spec.domain.splits(spec)
    task = spec.domain.task(spec, splits).to(setting.device)
    rounds = MEASURED_ROUNDS[setting.size]
    step = training_step(spec, task, splits, Mesh.alone(setting.device), rounds)
    seconds = measure_in_turn({name: step}, World(0, 1, setting.device), rounds)[name]
    rate, predicted = planned.flops / seconds, planned.seconds()
    memory = planned.memory.of(planned.strategy).total
    peak = cluster.peak_tflops["bf16"] * TERA
    figures: dict[str, Any] = {
        "parameters": planned.memory.facts.parameters, "batch": planned.strategy.micro_batch, "step_s": seconds,
        "planned_step_s": predicted, "tflops": rate / TERA, "planned_gb": memory / GB,
    }  # fmt: skip
    text = f"{planned.memory.facts.parameters / 1e6:.0f} M parameters, {planned.strategy.micro_batch} samples: "
    if setting.on_cpu:  # the plan's CPU is no real one
        return [f"{text}{seconds:.3g} CPU s a step, {rate / TERA:.3g} TFLOP/s; no plan for this CPU"], figures
    figures |= {"mfu": rate / peak, "planned_mfu": planned.flops / predicted / peak, **memory_in_use(setting.device)}
    return [
        f"{text}{seconds:.3g} s a step (planned {predicted:.3g}), MFU {rate / peak:.1%} "
        f"(planned {planned.flops / predicted / peak:.1%}), {rate / TERA:.3g} TFLOP/s",
        f"memory at most {figures['memory_peak_gb']:.2f} GB (planned {memory / GB:.2f})",
    ], figures


def memory(setting: Setting) -> Result:
    """Compares planned memory with measured: of the models above, or on a CPU of a small training."""
    if not setting.on_cpu:
        found = {name: item["figures"] for name, item in setting.before.items() if "memory_peak_gb" in item["figures"]}
        if not found:
            raise RuntimeError("no model was measured before")
        ratios = {name: figures["planned_gb"] / figures["memory_peak_gb"] for name, figures in found.items()}
        return [f"{name}: planned over measured {ratio:.2f}" for name, ratio in ratios.items()], ratios
    import planned_memory

    case = "language-one"
    ratio = planned_memory.planned(case)[0].total / max(planned_memory.measured(case).values())
    return [f"{case}: planned over measured {ratio:.2f}"], {case: ratio}


def efficiency(setting: Setting) -> Result:
    """Fits the shares of the peaks that this device reaches to the steps that were measured."""
    from scipy.optimize import minimize

    steps = {name: item["figures"]["step_s"] for name, item in setting.before.items() if "step_s" in item["figures"]}
    if not steps:
        raise RuntimeError("no model was measured before")
    known = Efficiency().on(setting.cluster)
    models = {name: planned_model(name, setting) for name in steps}

    def shares(x: np.ndarray) -> Efficiency:
        compute, attention_share, memory_share = (float(np.clip(value, 0.01, 1.0)) for value in np.exp(x))
        return Efficiency(compute, attention_share, known.link, memory_share)

    def misfit(x: np.ndarray) -> float:
        errors = [math.log(models[name].seconds(shares(x)) / seconds) for name, seconds in steps.items()]
        start = np.log([known.compute, known.attention, known.memory])
        return float(np.mean(np.square(errors)) + 1e-3 * np.square(x - start).sum())

    start = np.log([known.compute, known.attention, known.memory])
    fitted = shares(minimize(misfit, start, method="Nelder-Mead", options={"maxiter": 150}).x)
    ratios = {name: models[name].seconds(fitted) / seconds for name, seconds in steps.items()}
    values = ", ".join(f"{name}: {value:.2f}" for name, value in asdict(fitted).items())
    told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    lines = [
        f"efficiency: {{{values}}}  # for conf/cluster; link is not measured on one device",
        f"planned over measured then: {told}",
    ]
    if setting.on_cpu:
        lines[0] += "; of a CPU that is assumed, so this only tests the fit"
    return lines, {"efficiency": asdict(fitted), "planned_over_measured": ratios}
