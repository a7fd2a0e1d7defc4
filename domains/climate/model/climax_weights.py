"""Published weights of ClimaX: read from a file, and turned into those of our model that computes the same.

Names are those of https://github.com/microsoft/ClimaX, with or without the prefixes of training code.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.model.climax import LEAD_TIME_UNIT_H
from domains.climate.model.tokenizer import folded
from sciml.core.errors import ConfigError

PREFIXES = ("module.", "net.")
"""Names begin with these where data-parallel training, or ClimaX's own code, has written them."""
KEY = "climax"
FILED = {"pixels": "token_embeds.N.proj.weight (or token_embeds.proj_weights)"}
"""Names in files of what has one of ours."""
SUFFIXES = (".ckpt", ".pt", ".pth", ".safetensors")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file by name; a pickle is read as tensors alone, and runs no code.

    Raises:
        ConfigError: there is no such file, or it holds anything but tensors.
    """
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file} is no file of weights", key=KEY, hint=f"name one of {', '.join(SUFFIXES)}")
    if not file.is_file():
        raise ConfigError(f"there is no file {file}", key=KEY)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch advises to load it all the same
            document = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format and version has errors of its own
        said = " ".join(str(error).split(". ")[0].split()) or type(error).__name__
        unsafe = isinstance(error, UnpicklingError)
        raise ConfigError(
            f"{file} {'holds more than tensors, and is not opened' if unsafe else f'cannot be read ({said})'}",
            key=KEY,
            hint="save its state_dict as .safetensors where you trust it",
        ) from None
    state = document.get("state_dict", document) if isinstance(document, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{file} holds no state_dict", key=KEY)
    return dict(state)


def _check_numbers(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuses weights that are no numbers."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise ConfigError(f"{file}: {name} is of {tensor.dtype}; floating-point weights are needed", key=KEY)
        if not tensor.isfinite().all():
            raise ConfigError(f"{file}: {name} is not finite everywhere; take a whole file", key=KEY)


@dataclass(frozen=True)
class ClimaXWeights:
    """Holds the tensors of a published ClimaX, in one form, and the sizes that they tell.

    Attributes:
        tensors: by name without prefix; ``pixels`` (variable, embed, row, column) and ``biases`` (variable, embed)
            stand for the convolutions, of which there are two forms.
        num_variables: of all that it may read; the head predicts each of them.
        num_tokens: positions that were learned.
    """

    tensors: Mapping[str, Tensor]
    num_variables: int
    embed_dim: int
    num_tokens: int
    patch_size: int
    depth: int
    head_depth: int
    mlp_dim: int

    @classmethod
    def read(cls, file: Path) -> ClimaXWeights:
        """Reads a file.

        Raises:
            ConfigError: it cannot be read, or is none of ClimaX.
        """
        tensors = of_the_net(read_tensors(file))
        _check_numbers(file, tensors)
        tensors = one_form(tensors)
        try:
            depth, head = num_blocks(tensors, "blocks."), num_blocks(tensors, "head.")
            num_variables, embed_dim, patch_size, _ = tensors["pixels"].shape
            weights = cls(
                tensors,
                num_variables,
                embed_dim,
                tensors["pos_embed"].shape[1],
                patch_size,
                depth,
                (head - 1) // 2,  # a GELU without parameters follows each Linear but the last
                len(tensors["blocks.0.mlp.fc1.bias"]),
            )
            wanted = weights.shapes()
        except (KeyError, ValueError, IndexError) as error:
            missing = FILED.get(str(error).strip("'"), error)
            raise ConfigError(f"{file} holds no ClimaX: {missing} is missing or has another form", key=KEY) from None
        for name in sorted(wanted.keys() | tensors.keys()):
            found = tuple(tensors[name].shape) if name in tensors else None
            if found != wanted.get(name):
                what = f"{name} of shape {found}" if found else f"no {name}"
                meant = f"of shape {wanted[name]} is needed" if name in wanted else "is not part of one"
                raise ConfigError(f"{file} holds no ClimaX that is known here: it has {what}, which {meant}", key=KEY)
        return weights

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape that every tensor must have, by name."""
        dim, hidden, variables, p = self.embed_dim, self.mlp_dim, self.num_variables, self.patch_size
        shapes: dict[str, tuple[int, ...]] = {
            "pixels": (variables, dim, p, p),
            "biases": (variables, dim),
            "var_embed": (1, variables, dim),
            "var_query": (1, 1, dim),
            "pos_embed": (1, self.num_tokens, dim),
            "var_agg.in_proj_weight": (3 * dim, dim),
            "var_agg.in_proj_bias": (3 * dim,),
            "norm.weight": (dim,),
            "norm.bias": (dim,),
        }
        linears = {"var_agg.out_proj": (dim, dim), "lead_time_embed": (dim, 1)}
        for n in range(self.depth):
            block = f"blocks.{n}"
            shapes |= {f"{block}.{norm}.{key}": (dim,) for norm in ("norm1", "norm2") for key in ("weight", "bias")}
            linears |= {f"{block}.attn.qkv": (3 * dim, dim), f"{block}.attn.proj": (dim, dim)}
            linears |= {f"{block}.mlp.fc1": (hidden, dim), f"{block}.mlp.fc2": (dim, hidden)}
        linears |= {f"head.{2 * n}": (dim, dim) for n in range(self.head_depth)}
        linears[f"head.{2 * self.head_depth}"] = (variables * p * p, dim)
        for name, shape in linears.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes

    def converted(
        self,
        variables: Sequence[str],
        channels: Sequence[str],
        constants: Sequence[str],
        grid_shape: tuple[int, int],
        *,
        num_heads: int,
        south_first: bool = False,
        lead_time_unit_h: float = LEAD_TIME_UNIT_H,
    ) -> dict[str, Tensor]:
        """Returns the parameters of our :class:`ClimaX` of some of the variables that computes the same.

        Args:
            variables: names of the file's variables in their order.
            channels, constants: those that our model has.
            grid_shape: (latitudes, longitudes).
            num_heads: heads of every attention.
            south_first: whether the file's model took its fields from south to north. Ours takes them from north to
                south: kernels, positions and predicted pixels are turned over.
            lead_time_unit_h: hours that a lead time of 1 stands for in the file.
        """
        t, p, depth = self.tensors, self.patch_size, self.head_depth
        order = [list(variables).index(name) for name in (*channels, *constants)]
        pixels, places = t["pixels"], t["pos_embed"].view(grid_shape[0] // p, grid_shape[1] // p, -1)
        if south_first:
            pixels, places = pixels.flip(2), places.flip(0)
        tokenizer = folded(
            pixels[order].flatten(2),
            (t["biases"] + t["var_embed"][0])[order],
            t["var_query"].flatten(),
            t["var_agg.in_proj_weight"],
            t["var_agg.in_proj_bias"],
            t["var_agg.out_proj.weight"],
            t["var_agg.out_proj.bias"],
            num_heads,
        )
        weights = {f"tokenizer.{name}": value for name, value in tokenizer.items()}
        weights["position.weight"] = places.flatten(0, 1)
        weights["lead_time.weight"] = t["lead_time_embed.weight"] * (LEAD_TIME_UNIT_H / lead_time_unit_h)
        weights["lead_time.bias"] = t["lead_time_embed.bias"]
        for key in ("weight", "bias"):
            weights[f"trunk.norm.{key}"] = t[f"norm.{key}"]
            for n in range(self.depth):
                there, here = f"blocks.{n}", f"trunk.blocks.{n}"
                for name, part in zip(("wq", "wk", "wv"), t[f"{there}.attn.qkv.{key}"].chunk(3), strict=True):
                    weights[f"{here}.attention.{name}.{key}"] = part
                for name, published in BLOCK_NAMES.items():
                    weights[f"{here}.{name}.{key}"] = t[f"{there}.{published}.{key}"]
            for n in range(depth):
                weights[f"head.hidden.{n}.{key}"] = t[f"head.{2 * n}.{key}"]
            rows = self._rows_by_variable(t[f"head.{2 * depth}.{key}"], south_first)
            weights[f"head.project.{key}"] = rows[order[: len(channels)]].flatten(0, 1)
        return {name: value.contiguous() for name, value in weights.items()}

    def _rows_by_variable(
        self, rows: Float[Tensor, "row *embed"], south_first: bool
    ) -> Float[Tensor, "variable pixel *embed"]:
        """Returns the head's rows, which come by pixel and then by variable, by variable and then by pixel."""
        pixels = rows.unflatten(0, (self.patch_size, self.patch_size, self.num_variables))
        return (pixels.flip(0) if south_first else pixels).flatten(0, 1).transpose(0, 1)


BLOCK_NAMES = {
    "attention_norm": "norm1",
    "attention.wo": "attn.proj",
    "mlp_norm": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
"""Parts of a block here, and their names in ClimaX."""


def of_the_net(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by name without the prefixes of training code; what stands beside the net is left out."""
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return dict(tensors)


def one_form(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors by name, with all convolutions in two, whichever form the file has.

    The oldest files say ``channel`` where later ones say ``var``.
    """
    named = {name.replace("channel_", "var_", 1): tensor for name, tensor in tensors.items()}
    parallel = named.pop("token_embeds.proj_weights", None), named.pop("token_embeds.proj_biases", None)
    if parallel[0] is not None and parallel[1] is not None:
        return {**named, "pixels": parallel[0].squeeze(2), "biases": parallel[1]}
    count = num_blocks(named, "token_embeds.")
    try:
        kernels = [named.pop(f"token_embeds.{n}.proj.weight").squeeze(1) for n in range(count)]
        biases = [named.pop(f"token_embeds.{n}.proj.bias") for n in range(count)]
        return named | ({"pixels": torch.stack(kernels), "biases": torch.stack(biases)} if count else {})
    except (KeyError, RuntimeError):
        return named


def num_blocks(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Returns one more than the highest number that follows a prefix in the names."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}
    return max((int(number) + 1 for number in numbers if number.isdigit()), default=0)
