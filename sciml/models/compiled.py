"""Compiles the blocks of a model with torch's compiler."""

from __future__ import annotations

from torch import nn

from sciml.distributed.not_compiled import NotCompiled
from sciml.models.vit import Block


def compile_blocks(model: nn.Module) -> None:
    """Lets torch compile all transformer blocks of a model, when each is next trained; names of parameters stay.

    Messages between ranks are left as they are. Blocks of the same sizes share what is compiled.
    """
    NotCompiled.protect()
    for block in blocks_of(model):
        block.compile_tokens()


def blocks_of(model: nn.Module) -> list[Block]:
    """Returns the transformer blocks of a model."""
    return [module for module in model.modules() if isinstance(module, Block)]
