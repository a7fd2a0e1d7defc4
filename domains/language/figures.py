"""The pictures of a report on text."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from domains.language.page import draw_page, draw_writing
from domains.language.position import draw_bits_by_position
from domains.language.schema import LanguageSchema
from sciml.domain.protocol import NamedFigure, RunResult


def language_figures(result: RunResult) -> Iterator[NamedFigure]:
    """Yields every picture that the example of a run allows, the most telling first.

    ``result.example`` holds what :func:`domains.language.example.language_example` gives.
    """
    title = LanguageSchema.from_dict(result.schema).title
    example = result.example
    if "bits_model" not in example:
        return
    yield NamedFigure(
        "bits_by_position",
        "What the context is worth",
        "Mean bits that a byte of the test text costs, by the number of bytes before it that the model sees. Dashed "
        "lines are the baselines: bytes by their frequency, and by their frequency behind the last one.",
        partial(draw_bits_by_position, example, title),
    )
    yield NamedFigure(
        "page",
        "One page, byte by byte",
        "The beginning of the test text, each byte colored by the bits that it cost the model: white ones it knew, "
        "dark ones surprised it. At each bar it has forgotten everything before.",
        partial(draw_page, example, title),
    )
    if len(example["written"]):
        yield NamedFigure(
            "writing",
            "What the model writes",
            "Behind a beginning from the test text (gray) the model goes on by itself, drawing each byte from its own "
            "probabilities.",
            partial(draw_writing, example, title),
        )
