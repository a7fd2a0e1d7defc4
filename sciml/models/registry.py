"""The model families that exist, and the configuration class of each."""

from __future__ import annotations

from importlib import import_module

from sciml.core.errors import ConfigError, nearest

# Names, not classes: a program that only lists its options need not import torch.
MODEL_CONFIGS = {"gnn": ("sciml.models.gnn", "GNNConfig"), "vit": ("sciml.models.vit", "ViTConfig")}


def config_class(kind: str) -> type:
    """The configuration dataclass of a model family.

    Args:
        kind: the family, as in ``model.kind``.

    Raises:
        ConfigError: where there is no such family.
    """
    if kind not in MODEL_CONFIGS:
        raise ConfigError(f"{kind!r} is no kind of model", key="model.kind", hint=nearest(kind, MODEL_CONFIGS))
    module, name = MODEL_CONFIGS[kind]
    return getattr(import_module(module), name)
