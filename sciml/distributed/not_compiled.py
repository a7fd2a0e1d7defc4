"""Keeps functions that talk to other ranks out of what torch.compile compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakSet


class NotCompiled:
    """Calls a function that the compiler must not look into: compiled code ends before it and goes on behind it.

    Nothing of torch's compiler is imported before :meth:`protect` is called, since that takes seconds.

    Args:
        function: to be called as it is.
    """

    _all: ClassVar[WeakSet[NotCompiled]] = WeakSet()

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.is_protected = function, False
        self._all.add(self)

    def __call__(self, *args: Any) -> Any:
        """Calls the function."""
        return self.function(*args)

    @classmethod
    def protect(cls) -> None:
        """Hides all such functions from the compiler, before the first block is compiled."""
        import torch

        for one in cls._all:
            if not one.is_protected:
                one.function, one.is_protected = torch.compiler.disable(one.function), True
