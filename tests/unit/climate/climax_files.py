"""Files as ClimaX publishes them, of random numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from domains.climate.model.climax_weights import ClimaXWeights


def tensors(
    num_variables: int, *, rows: int = 8, dim: int = 16, patch_size: int = 2, depth: int = 2
) -> dict[str, Tensor]:
    """The tensors of a ClimaX with one convolution a variable, on a grid of rows x 2 rows; names without prefix."""
    num_tokens = 2 * rows * rows // patch_size**2
    sizes = ClimaXWeights({}, num_variables, dim, num_tokens, patch_size, depth, head_depth=1, mlp_dim=2 * dim)
    generator = torch.Generator().manual_seed(0)
    named = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in sizes.shapes().items()}
    kernels, biases = named.pop("pixels"), named.pop("biases")
    for n in range(num_variables):
        named[f"token_embeds.{n}.proj.weight"], named[f"token_embeds.{n}.proj.bias"] = kernels[n][:, None], biases[n]
    return named


def write(file: Path, named: dict[str, Tensor]) -> Path:
    """Writes tensors with the prefix of ClimaX's training, as a checkpoint of it or as safetensors."""
    prefixed = {f"net.{name}": tensor.contiguous() for name, tensor in named.items()}
    if file.suffix == ".safetensors":
        save_file(prefixed, file)
    else:
        torch.save({"epoch": 3, "state_dict": prefixed}, file)
    return file
