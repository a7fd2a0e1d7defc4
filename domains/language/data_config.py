"""What users may say about the text that a model learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sciml.core.config import positive
from sciml.core.errors import ConfigError


@dataclass(frozen=True)
class TextSplits:
    """Says which part of every file each split gets, in this order; their proportion counts."""

    train: float = 0.9
    valid: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if share < 0:
                raise ConfigError(f"{share} is negative", key=f"data.splits.{name}", hint="write shares, e.g. 0.1")
        positive(self.train + self.valid + self.test, "data.splits", example=1)


@dataclass(frozen=True)
class LanguageDataConfig:
    """Holds the ``data`` keys of a run on text.

    Attributes:
        path: a file, a pattern, or several of them; their bytes are the tokens, whatever they encode.
        context: bytes that a sample has; None takes the model's context.
        splits: how every file is shared out.
        title: what the text is; shown on pictures.
    """

    path: str | list[str] = "data/language/moby_dick.txt"
    context: int | None = None
    splits: TextSplits = field(default_factory=TextSplits)
    title: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("no text is named", key="data.path", hint="e.g. data.path=book.txt")
        if self.context is not None:
            positive(self.context, "data.context", example=128)

    @property
    def patterns(self) -> Sequence[str]:
        return [self.path] if isinstance(self.path, str) else self.path
