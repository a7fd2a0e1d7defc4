"""A step of the adaptive multiscale transformer beside one of MATEY (ORNL), of the same shapes, in one run: CPU time.

    git clone https://github.com/ORNL/MATEY && python benchmarks/matey.py MATEY

needs einops besides. Fields of 128x256 cells, four variables, one frame, one sample; width 192, twelve blocks, three
heads; patches of 16, of which 24 are refined to 4: 512 tokens. MATEY's ``mixed`` form has all tokens in one sequence,
its ``multi`` form each refined patch in one of its own, without attention between them and the coarse ones. Arms are
measured in turn, round after round; times are CPU milliseconds on one thread (median), and the ratio is that of a
round's times to those of ours (median).

MATEY imports a few packages that this measurement has no use for: attention goes to PyTorch's own in float32 where it
calls flash_attn, which has no CPU form, and dropped paths are none. Its blocks cannot be compiled with their masks
(torch 2.13: a tensor that the backward pass needs is changed in place); ours are measured both ways.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import types
from pathlib import Path

import torch
from amr import ARMS, Arm, build
from torch import nn

SHAPE = {"rows": 128, "columns": 256, "embed_dim": 192, "depth": 12, "heads": 3, "batch": 1}
OURS = ("uniform 16", "uniform 8", "adaptive 16-4", "adaptive 32-8-4")
RATIO = 0.1875
THEIRS = {
    "MATEY, uniform 16": ([[1, 16, 16]], None, False),
    "MATEY, uniform 8": ([[1, 8, 8]], None, False),
    "MATEY, mixed 16-4": ([[1, 4, 4], [1, 16, 16]], RATIO, False),
    "MATEY, multi 16-4": ([[1, 4, 4], [1, 16, 16]], RATIO, True),
}
"""Patches of each arm from the smallest, the share of the largest that is refined, and whether it is apart."""


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Stands for ``flash_attn_func``, whose tensors are (batch, token, head, channel)."""
    heads_first = (part.transpose(1, 2).float() for part in (q, k, v))
    return nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)


class NoDropPath(nn.Identity):
    """Stands for ``timm.layers.DropPath``."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__()


def _module(name: str, **content: object) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return module


def load_matey(checkout: Path) -> tuple[type[nn.Module], type]:
    """Imports MATEY's transformer and its options, without its trainer and readers."""
    _module("flash_attn", flash_attn_func=attend)
    _module("flash_attn.flash_attn_interface", _flash_attn_forward=None, _flash_attn_backward=None)
    _module("timm")
    _module("timm.layers", DropPath=NoDropPath)
    for name in ("matey", "matey.data_utils", "matey.utils"):
        _module(name, __path__=[str(checkout / name.replace(".", "/"))])
    utils = vars(sys.modules["matey.utils"])
    for name in ("forward_options", "graph_utils", "distributed_utils"):
        utils.update(vars(importlib.import_module(f"matey.utils.{name}")))
    return importlib.import_module("matey.models.vit").ViT_all2all, utils["ForwardOptionsBase"]


def matey_arm(matey: tuple[type[nn.Module], type], patches: list[list[int]], ratio: float | None, apart: bool) -> Arm:
    make, options = matey
    torch.manual_seed(0)
    model = make(
        tokenizer_heads=[{"head_name": "plane", "patch_size": patches}], embed_dim=SHAPE["embed_dim"],
        num_heads=SHAPE["heads"], processor_blocks=SHAPE["depth"], n_states=4, n_steps=1, replace_patch=not apart,
        sts_model=apart,
    )  # fmt: skip
    fields = torch.randn(1, SHAPE["batch"], 4, 1, SHAPE["rows"], SHAPE["columns"])
    given = (torch.arange(4)[None], torch.zeros(1, 2), options(tkhead_name="plane", refine_ratio=ratio))

    def infer() -> None:
        with torch.no_grad():
            model(fields, *given)

    def train() -> None:
        model(fields, *given).square().mean().backward()

    cells = SHAPE["rows"] * SHAPE["columns"]
    coarse, fine = (cells // (patch[1] * patch[2]) for patch in (patches[-1], patches[0]))
    refined = round((ratio or 0) * coarse)
    return Arm(coarse + refined * (fine // coarse - (0 if apart else 1)) if ratio else coarse, infer, train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="the folder of MATEY")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(args.checkout))
    matey = load_matey(args.checkout)
    shape = argparse.Namespace(**SHAPE)
    arms = {name: build(shape, ARMS[name]) for name in OURS}
    arms |= {f"{name}, compiled": build(shape, ARMS[name], compiled=True) for name in OURS[1:3]}
    arms |= {name: matey_arm(matey, *arm) for name, arm in THEIRS.items()}
    for number in range(args.repeats + 1):
        for arm in arms.values():
            if number == 1:  # the first round only warms up
                arm.taken = {step: [] for step in arm.taken}
            arm.measure()
    ours = arms["adaptive 16-4"].taken
    print(f"{'':30s}{'tokens':>8s}{'inference ms':>14s}{'ratio':>8s}{'training ms':>14s}{'ratio':>8s}")
    for name, arm in arms.items():
        line = f"{name:30s}{arm.tokens:8d}"
        for step, times in arm.taken.items():
            ratio = statistics.median(a / b for a, b in zip(times, ours[step], strict=True))
            line += f"{statistics.median(times):14.0f}{ratio:8.2f}"
        print(line)


if __name__ == "__main__":
    main()
