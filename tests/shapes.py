"""Shapes in annotations, checked: a call whose tensors do not fit them fails the test that made it.

Every function, method and dataclass of the suite with a jaxtyping annotation is wrapped as its module is imported
(jaxtyping matches shapes, beartype walks through containers). All other annotations are mypy's, which sees more of
them at no cost. Processes that tests start are not checked.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped

PACKAGES = ("sciml", "domains")


def has_shape(hint: Any) -> bool:
    """Return whether a type is, or contains, one with a shape."""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(has_shape(argument) for argument in typing.get_args(hint))


def check_shapes_alone(function: FunctionType) -> Callable[..., Any]:
    """Let beartype check a function's shapes, and leave out what else is annotated."""
    function.__annotations__ = {name: hint for name, hint in function.__annotations__.items() if has_shape(hint)}
    return beartype(function)


def checked(function: FunctionType) -> FunctionType:
    """Return a function that checks its shapes; itself, where it has none."""
    if not any("[" in str(hint) and _names_shape(str(hint)) for hint in function.__annotations__.values()):
        return function
    checking = jaxtyped(function, typechecker=check_shapes_alone)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        called = function if torch.compiler.is_compiling() else checking  # dynamo traces what was written
        return called(*args, **kwargs)

    return typing.cast(FunctionType, call)


def _names_shape(hint: str) -> bool:
    return any(f"{kind}[" in hint for kind in ("Float", "Int", "Bool", "Complex", "Shaped", "Integer", "Num"))


def check_module(module: ModuleType) -> None:
    """Wrap what a module defines."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            setattr(module, name, checked(value))
        elif inspect.isclass(value):
            _check_class(value)


def _check_class(cls: type) -> None:
    for name, value in list(vars(cls).items()):
        if isinstance(value, FunctionType):
            setattr(cls, name, checked(value))
        elif isinstance(value, (staticmethod, classmethod)):
            setattr(cls, name, type(value)(checked(value.__func__)))
        elif isinstance(value, property) and isinstance(value.fget, FunctionType):
            setattr(cls, name, property(checked(value.fget), value.fset, value.fdel, value.__doc__))
    if is_dataclass(cls) and any(_names_shape(str(hint)) for hint in inspect.get_annotations(cls).values()):
        jaxtyped(cls, typechecker=check_shapes_alone)


class ShapeFinder(importlib.abc.MetaPathFinder):
    """Finds the suite's modules as always, and has them checked once they are executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = ShapeLoader(spec.loader.name, spec.loader.path)
        return spec


class ShapeLoader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        check_module(module)


def install() -> None:
    """Check the shapes of all modules of the suite that are imported from now on."""
    early = [name for name in sys.modules if name.split(".")[0] in PACKAGES]
    assert not early, f"imported before shapes were to be checked: {early}"
    sys.meta_path.insert(0, ShapeFinder())
