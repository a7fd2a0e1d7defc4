"""Keeps torch's compiler out of a plan's passes: importing it takes longer than they do, and nothing is compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

COMPILER = "torch._dynamo"
_MADE = "__dynamo_disable"
"""Attribute in which torch keeps what the compiler has made of a function that it is not to look into."""


class _StandIn(ModuleType):
    """Answers what torch asks its compiler in passing; whoever asks for more gets the compiler itself.

    Attributes:
        left_alone: the functions that the compiler was told not to look into.
    """

    config = SimpleNamespace(error_on_nested_fx_trace=True)
    trace_rules = SimpleNamespace(clear_lru_cache=lambda: None)

    def __init__(self) -> None:
        super().__init__(COMPILER)
        self.left_alone: list[Any] = []

    def disable(self, function: Any = None, *_: Any, **__: Any) -> Any:
        if function is None:
            return self.disable
        self.left_alone.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.go()
        return getattr(import_module(COMPILER), name)

    def go(self) -> None:
        """Makes room for the compiler, and forgets what it was told."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        for function in self.left_alone:
            vars(function).pop(_MADE, None)
        self.left_alone.clear()


@contextmanager
def eager() -> Iterator[None]:
    """Lets what torch hides from its compiler (checkpoints, shapes of the meta device) run without importing that.

    Where it is imported already nothing changes.
    """
    if COMPILER in sys.modules:
        yield
        return
    stand_in = _StandIn()
    sys.modules[COMPILER] = stand_in
    try:
        yield
    finally:
        stand_in.go()
