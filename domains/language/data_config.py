"""Holds the keys that users may set about the text that a model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, FilePath, NonNegative


@dataclass(frozen=True)
class TextSplits:
    """Says which part of every file each split gets, in this order; their proportion counts."""

    train: NonNegative[float] = 0.9
    valid: NonNegative[float] = 0.05
    test: NonNegative[float] = 0.05

    def __post_init__(self) -> None:
        if not self.train + self.valid + self.test > 0:
            raise ConfigError("must not all be 0", key="data.splits", hint="try data.splits.train=1")


@dataclass(frozen=True)
class LanguageDataConfig:
    """Holds the ``data`` keys of a run on text.

    Attributes:
        path: a file, a pattern, or several of them; their bytes are the tokens, whatever they encode.
        context: bytes that a sample has; None takes the model's context.
        splits: how every file is shared out.
        title: what the text is; shown on pictures.
    """

    practical: ClassVar[tuple[str, ...]] = ("path",)

    path: FilePath | list[FilePath] = "data/language/moby_dick.txt"
    context: AtLeastOne | None = None
    splits: TextSplits = field(default_factory=TextSplits)
    title: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("no text is named", key="data.path", hint="e.g. data.path=book.txt")

    @property
    def patterns(self) -> Sequence[str]:
        return [self.path] if isinstance(self.path, str) else self.path
