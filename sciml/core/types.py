"""Types of configuration values that say which values are allowed; :func:`sciml.core.config.build` checks them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from annotated_types import Ge, Gt, Interval
from pydantic import AfterValidator

from sciml.core.installation import located

Number = TypeVar("Number", int, float)

Positive = Annotated[Number, Gt(0)]
NonNegative = Annotated[Number, Ge(0)]
AtLeastOne = Annotated[int, Ge(1)]

Fraction = Annotated[float, Interval(ge=0, le=1)]
"""From 0 to 1, both included: a share of something."""

PositiveFraction = Annotated[float, Interval(gt=0, le=1)]
"""Above 0 and at most 1: an efficiency."""

FractionBelowOne = Annotated[float, Interval(ge=0, lt=1)]
"""From 0 to 1, without 1: the probability of a dropout, a margin."""

OpenFraction = Annotated[float, Interval(gt=0, lt=1)]
"""Between 0 and 1, without both: the decay of a running average."""

DeviceName = Literal["auto", "cpu", "cuda", "xpu", "mps"]
"""Kinds of devices as torch names them; AMD's are ``cuda``, ``auto`` is an accelerator where there is one."""

FilePath = Annotated[str, AfterValidator(located)]
"""Names a file, a folder or a pattern; a dataclass that is built has it absolute, a run keeps it as it can be found
again: see :mod:`sciml.core.installation`.
"""
