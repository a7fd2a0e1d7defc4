"""The weights of a checkpoint as one safetensors file, written tensor by tensor, on whatever mesh they were saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from sciml.core.errors import ConfigError, DataError
from sciml.nn.low_rank import is_low_rank, low_rank_factors
from sciml.training.checkpoint_files import fill, read_manifest, read_metadata, stored_tensors
from sciml.training.safetensors_file import write_safetensors

MODEL, AVERAGED = "model.", "ema."
Weights = Literal["model", "ema"]


@dataclass(frozen=True)
class WholeWeights:
    """Says what was written.

    Attributes:
        step: of the checkpoint.
        kind: the plain weights, or their average.
        tensors: how many.
        parameters: numbers in them.
        sha256: of the file.
    """

    step: int
    kind: Weights
    tensors: int
    parameters: int
    sha256: str


def write_whole_weights(
    path: Path,
    out: Path,
    kind: Weights | None = None,
    *,
    dtype: torch.dtype | None = None,
    prefix: str = "",
    verify: bool = True,
) -> WholeWeights:
    """Writes the weights of a checkpoint into one file, which is overwritten; changes of low rank are added to their
    matrices.

    Args:
        path: the checkpoint.
        kind: which weights; None takes the average where one was kept. Buffers are not averaged: they are the model's.
        dtype: of floating-point tensors in the file; None keeps theirs.
        prefix: before each name.
        verify: whether files are compared with their checksums.

    Raises:
        ConfigError: no average was kept.
        DataError: the checkpoint is damaged, or holds no weights.
    """
    manifest = read_manifest(path, verify=verify)
    metadata = read_metadata(path)
    stored = stored_tensors(metadata)
    averaged = any(name.startswith(AVERAGED) for name in stored)
    kind = kind or ("ema" if averaged else "model")
    if kind == "ema" and not averaged:
        raise ConfigError(f"{path} holds no averaged weights", key="weights", hint="weights=model")
    names = {name.removeprefix(MODEL): name for name in stored if name.startswith(MODEL)}
    if kind == "ema":
        names |= {name.removeprefix(AVERAGED): name for name in stored if name.startswith(AVERAGED)}
    if not names:
        raise DataError(f"{path} holds no weights of a model")

    def type_of(name: str) -> torch.dtype:
        own = stored[names[name]].properties.dtype
        return dtype if dtype is not None and own.is_floating_point else own

    def read(name: str) -> Shaped[Tensor, "..."]:
        facts = stored[names[name]]
        tensor = torch.empty(facts.size, dtype=facts.properties.dtype)
        fill({names[name]: tensor}, path, metadata)
        return tensor

    def value(name: str) -> Shaped[Tensor, "..."]:
        tensor, factors = read(name), low_rank_factors(name, names)
        if factors is not None:
            tensor = tensor + read(factors[0]) @ read(factors[1])
        return tensor.to(type_of(name))

    kept = [name for name in names if not is_low_rank(name)]
    like = {name: torch.empty(stored[names[name]].size, dtype=type_of(name), device="meta") for name in kept}
    facts = {"format": "pt", "step": str(manifest["step"]), "weights": kind}
    checksum = write_safetensors(
        out,
        {f"{prefix}{name}": tensor for name, tensor in like.items()},
        lambda name: value(name.removeprefix(prefix)),
        facts,
    )
    return WholeWeights(manifest["step"], kind, len(kept), sum(t.numel() for t in like.values()), checksum)
