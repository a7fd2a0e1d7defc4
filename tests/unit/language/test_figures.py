"""Pictures of text: where bytes stand, and that pictures are drawn whatever the bytes are."""

from __future__ import annotations

import numpy as np
import pytest

from domains.language.figures import language_figures
from domains.language.page import LOZENGE, RETURN, glyphs_of, lay_out
from domains.language.position import bin_edges
from sciml.domain.protocol import RunResult


def test_a_glyph_for_every_byte_at_the_end_of_its_character():
    text = "a\u2014b\n".encode()
    assert glyphs_of(text) == ["a", "", "", "\u2014", "b", RETURN]
    assert glyphs_of(b"\xff\x00a") == [LOZENGE, LOZENGE, "a"]


def test_lines_end_between_words_and_behind_returns():
    glyphs = [RETURN if character == "\n" else character for character in "one two three\n\nfour"]
    lines: dict[int, str] = {}
    for cell in lay_out(glyphs, columns=7):
        lines[cell.row] = lines.get(cell.row, "") + cell.glyph
    assert lines == {0: "one two ", 1: f"three{RETURN}", 2: RETURN, 3: "four"}


def test_a_word_that_no_line_holds_is_cut():
    cells = lay_out("x" * 200, columns=80)
    assert [(cell.row, cell.column) for cell in (cells[79], cells[80], cells[199])] == [(0, 79), (1, 0), (2, 39)]


@pytest.mark.parametrize("context", [1, 2, 3, 31, 128])
def test_bins_cover_every_position_once(context):
    edges = bin_edges(context)
    assert edges[0] == 1
    assert edges[-1] == context + 1
    assert edges == sorted(set(edges))


@pytest.mark.parametrize("context", [1, 7, 64])
def test_all_pictures_are_drawn(tmp_path, context):
    generator = np.random.default_rng(0)
    drawn = generator.integers(256, size=(3, 200), dtype=np.uint8)
    example = {
        **{f"bits_{name}": np.full(context, 3.0) for name in ("model", "unigram", "bigram")},
        "page": drawn[0], "page_bits": generator.uniform(0, 12, 200), "beginning": drawn[1, :9], "written": drawn[2],
    }  # fmt: skip
    result = RunResult(tmp_path, {}, {"context": context, "title": "bytes"}, [], [], example)
    figures = {figure.name: figure.render(tmp_path / figure.name) for figure in language_figures(result)}
    assert set(figures) == {"bits_by_position", "page", "writing"}
    assert all(path.stat().st_size > 1000 for path in figures.values())
    nothing = RunResult(tmp_path, {}, {"context": context, "title": ""}, [], [], {**example, "written": drawn[2, :0]})
    assert "writing" not in {figure.name for figure in language_figures(nothing)}
