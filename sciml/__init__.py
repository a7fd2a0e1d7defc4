"""SciML: a scientific foundation-model suite.

    import sciml

    model = sciml.load("latest")                    # or sciml.train(domain="climate")
    forecast = model.forecast("2001-12-01", "72h")  # an xarray.Dataset

Everything is imported when it is first used, so that ``import sciml`` itself costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Plan", "__version__", "load", "plan", "train"]

if TYPE_CHECKING:
    from sciml.app.python import Plan, load, plan, train


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sciml.app import python

        return getattr(python, name)
    raise AttributeError(f"module 'sciml' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
