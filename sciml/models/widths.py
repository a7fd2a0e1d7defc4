"""Models of the same form and another width."""

from __future__ import annotations

from typing import Any

from sciml.core.errors import ConfigError

STEP = 8
"""Channels come in multiples of it."""


def widened(config: Any, factor: float) -> dict[str, Any]:
    """Returns the keys of a model's configuration that a factor on its widths changes.

    Channels are rounded to multiples of eight; what is cut into heads keeps the width of a head.

    Args:
        config: a dataclass whose ``WIDTHS`` names the keys that are widths.

    Raises:
        ConfigError: where it names none.
    """
    names: tuple[str, ...] = getattr(config, "WIDTHS", ())
    if not names:
        raise ConfigError(f"a model of kind {config.kind!r} does not say which of its keys are widths", key="model")

    def times(width: int) -> int:
        return max(STEP, round(width * factor / STEP) * STEP)

    changed: dict[str, Any] = {}
    for name in names:
        value = getattr(config, name)
        changed[name] = [times(width) for width in value] if isinstance(value, tuple) else times(value)
    if "embed_dim" in names and hasattr(config, "num_heads"):
        heads = max(1, round(config.num_heads * factor))
        changed |= {"num_heads": heads, "embed_dim": heads * (config.embed_dim // config.num_heads)}
    return changed
