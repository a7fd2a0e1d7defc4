"""The items of ``accelerator.py`` that test a device: what trainings need of it, and which attention it takes."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from typing import Any

import torch
from accelerator_setting import PLAIN, Result, Setting, mean_seconds, start_training, wait
from torch import nn

from sciml.core.compiler import can_compile
from sciml.data.loader import ShuffledSampler, training_batches
from sciml.distributed.mesh import Mesh
from sciml.models.vit import Block, ViTConfig
from sciml.nn.initialization import initialize
from sciml.parallel.placement import Placement
from sciml.planning.cluster_here import TERA
from sciml.run.compose import compose
from sciml.run.spec import RunSpec
from sciml.training.config import OptimConfig
from sciml.training.energy import EnergyMeter
from sciml.training.optimizer import build_optimizer


def checks(setting: Setting) -> Result:
    """Tests what trainings need of a device; all are tried, and the item fails where one does."""
    figures: dict[str, Any] = {}
    lines, failed = [], []
    for check in (_autocast, _fused, _compiled, _checkpoint, _pinned, _energy):
        name = check.__name__.strip("_")
        try:
            figures[name] = check(setting)
            lines.append(f"{name}: {figures[name]}")
        except Exception as error:
            failed.append(name)
            lines.append(f"{name}: failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return lines, {**figures, "failed": failed}


def _autocast(setting: Setting) -> str:
    one = torch.randn(64, 64, device=setting.device)
    with torch.autocast(setting.device.type, dtype=torch.bfloat16):
        half = one @ one
    assert half.dtype == torch.bfloat16
    error = ((half.float() - one @ one).norm() / (one @ one).norm()).item()
    assert error < 0.02, f"a product in bfloat16 is off by {error:.3f}"
    return f"a product in bfloat16 is off by {error:.1e}"


def _fused(setting: Setting) -> str:
    parameters = [nn.Parameter(torch.randn(256, 256, device=setting.device)) for _ in range(2)]
    named = {"weight": parameters[0]}
    parameters[1].data.copy_(parameters[0].data)
    optimizer = build_optimizer(named, {"weight": Placement(Mesh.alone(), (256, 256))}, OptimConfig(weight_decay=0.1))
    assert optimizer.param_groups[0]["fused"]
    options = {"lr": OptimConfig().lr, "betas": OptimConfig().betas, "weight_decay": 0.1}
    plain = torch.optim.AdamW([parameters[1]], eps=OptimConfig().eps, foreach=False, **options)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    for _ in range(3):
        optimizer.step()
        plain.step()
    difference = (parameters[0] - parameters[1]).abs().max().item()
    assert difference < 1e-6, f"fused and plain AdamW differ by {difference:.1e}"
    return f"fused and plain AdamW differ by {difference:.1e}"


def _block(setting: Setting, width: int) -> nn.Module:
    block = Block(ViTConfig(embed_dim=width, num_heads=max(1, width // 64), conditioning="none", rotary_axes=()))
    initialize(block, 0)
    return block.to(setting.device)


def _compiled(setting: Setting) -> str:
    if not can_compile(setting.device):
        return "torch finds no compiler here"
    block = _block(setting, 128)
    x = torch.randn(2, 64, 128, device=setting.device)
    began = time.perf_counter()
    difference = (torch.compile(block)(x) - block(x)).abs().max().item()
    assert difference < 1e-3, f"compiled blocks differ by {difference:.1e}"
    return f"compiled blocks differ by {difference:.1e}, after {time.perf_counter() - began:.0f} s"


def _checkpoint(setting: Setting) -> str:
    arguments = ["domain=language", *PLAIN, "trainer.max_steps=2", "trainer.global_batch_size=2"]
    with tempfile.TemporaryDirectory() as folder:
        training = start_training(arguments, setting, folder)
        training.fit()
        again = start_training([*arguments, f"resume={training.folder.path}"], setting, folder)
        state = again.trainer.engine.state()
        kept = training.trainer.engine.state()
        assert again.trainer.step == 2
        assert all(torch.equal(value, state[name]) for name, value in kept.items())
        weights = [value for name, value in state.items() if name.startswith("model.")]
        assert {value.device.type for value in weights} == {setting.device.type}
    return f"{len(kept)} tensors came back bit for bit"


def _pinned(setting: Setting) -> str:
    if setting.on_cpu:
        return "nothing to pin for a CPU"
    spec = RunSpec.build(compose("train", ["domain=language"]).config)
    splits = spec.domain.splits(spec)
    stream = ShuffledSampler(len(splits.train), 2, 0)
    options = {"start_step": 0, "stop_step": 2, "micro_batch_size": 2, "pin_memory": True}
    batches = list(training_batches(splits.train, stream, **options))
    assert all(value.is_pinned() for value in vars(batches[0]).values() if isinstance(value, torch.Tensor))
    batches[0].to(setting.device)
    return "the loader's batches are pinned"


def _energy(setting: Setting) -> str:
    meter = EnergyMeter(setting.device)
    x = torch.randn(1024, 1024, device=setting.device)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        x @ x
        wait(setting.device)
    joules = meter.joules()
    return meter.source if joules is None else f"{meter.source}, {joules / 0.5:.0f} W while multiplying"


def attention(setting: Setting) -> Result:
    """Finds which kernel attention takes in the shared block, and how fast it is."""
    heads, tokens = (16, 4096) if setting.size == "full" else (2, 256)
    block, x = _block(setting, 128), torch.randn(1, 64, 128, device=setting.device)
    with torch.profiler.profile() as profile, torch.autocast(setting.device.type, dtype=torch.bfloat16):
        block(x)
    kernels = sorted({e.key for e in profile.key_averages() if e.key.startswith("aten::_scaled_dot_product_")})
    query, key, value = (torch.randn(2, heads, tokens, 128, device=setting.device).bfloat16() for _ in range(3))
    work = partial(nn.functional.scaled_dot_product_attention, query, key, value)
    seconds = mean_seconds(work, setting, 2 if setting.on_cpu else 20)
    rate = 4 * 2 * heads * tokens**2 * 128 / seconds / TERA
    is_flash = any("flash" in kernel or "cudnn" in kernel for kernel in kernels)
    lines = [f"FlashAttention is {'in use' if is_flash else 'NOT in use'}: {', '.join(kernels) or 'no fused kernel'}",
             f"{tokens} tokens, {heads} heads of 128, bfloat16: {rate:.3g} TFLOP/s forward"]  # fmt: skip
    return lines, {"kernels": kernels, "flash": is_flash, "tflops": rate}
