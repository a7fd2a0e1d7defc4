"""Builds a model that files describe, no larger than the checkpoint that it is for.

``run.json`` may come from a stranger, or be damaged: a depth of a billion would take all memory before its weights
are found not to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules import module as hooks

from sciml.core.errors import ConfigError
from sciml.training.checkpoint_files import SAME_MODEL, refuse_other_shapes, tensor_shapes

SLACK = 1000
"""How many parts a model may make while it is built beside those that it keeps."""


def sized_build(build: Callable[[], nn.Module], checkpoint: Path) -> Callable[[], nn.Module]:
    """Returns a function that builds the same model, and refuses one whose tensors are not those of a checkpoint.

    Args:
        build: makes the model for one device.
        checkpoint: only the headers of its files are read.

    Raises:
        ConfigError: by the function that is returned; under the meta device it then has taken no memory.
        DataError: where the checkpoint cannot be read.
    """
    stored = tensor_shapes(checkpoint)

    def build_sized() -> nn.Module:
        with _at_most(10 * len(stored) + SLACK, checkpoint):
            model = build()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        repeated = set(parameters) - set(dict(model.named_parameters()))  # stored under another name
        kept = {name: value for name, value in model.state_dict().items() if name not in repeated}
        refuse_other_shapes(checkpoint, {f"model.{name}": value.shape for name, value in kept.items()}, stored)
        return model

    return build_sized


@contextmanager
def _at_most(parts: int, checkpoint: Path) -> Iterator[None]:
    """Refuses to build more than a number of modules, parameters and buffers."""
    built = 0

    def count(*_: Any) -> None:
        nonlocal built
        built += 1
        if built > parts:
            raise ConfigError(f"has far more layers than the checkpoint {checkpoint}", key="model", hint=SAME_MODEL)

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
