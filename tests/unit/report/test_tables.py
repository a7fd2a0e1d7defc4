"""Plain-text tables: widths, alignment, prefixes, and nothing that only a terminal understands."""

from __future__ import annotations

import pytest

from sciml.report.tables import WIDTH, Column, beside, count, duration, facts, render, table, with_prefix

ROWS = [("tp=2", 8, None), ("dp=2 pp=4 zero_bubble", 16, "the bubble")]


def test_columns_are_aligned_and_numbers_stand_to_the_right():
    text = render(table(["strategy", Column("micro", is_number=True), "why"], ROWS))
    assert text.splitlines() == [
        "strategy                micro   why",
        "------------------------------------------",
        "tp=2                        8",
        "dp=2 pp=4 zero_bubble      16   the bubble",
    ]


def test_a_notebook_shows_no_table_that_was_only_rendered(monkeypatch, capsys):
    expected = render(table(["a"], [("1",)]))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert render(table(["a"], [("1",)])) == expected != ""
    assert capsys.readouterr().out == ""


def test_output_is_the_same_whatever_the_terminal(monkeypatch):
    plain = render(table(["a", "b"], [("[red]1[/red]", "x" * 200)]))
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    assert render(table(["a", "b"], [("[red]1[/red]", "x" * 200)])) == plain
    assert "\x1b" not in plain
    assert "[red]1[/red]" in plain  # cells are text and no markup
    assert plain.isascii()


def test_long_cells_are_folded_and_lines_to_paste_are_not():
    command = "python scripts/train.py " + "parallel.tp=2 " * 20
    text = render(command, table([Column("name", is_folded=False), "reason"], [("tp=2", "word " * 60)]))
    first, *rest = text.splitlines()
    assert first == command
    assert max(map(len, rest)) <= WIDTH
    assert " ".join(text.split()).count("word") == 60


def test_facts_leave_out_what_is_unknown_and_tables_stand_beside_one_another():
    assert render(facts({"Step": "1 s", "Price": None, "Memory": "2 GB"})) == "Step    1 s\nMemory  2 GB"
    one, two = (table([name], [("1",), ("2",)]) for name in ("a", "b"))
    assert render(beside(one, two)).splitlines() == ["a    b", "-    -", "1    1", "2    2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1.5e12, "1.5 TB"), (22.67e6, "22.67 MB"), (999, "999 B"), (0.0123, "12.3 mB"), (3e-9, "0.003 uB")],
)
def test_prefixes_fit_the_size(value, text):
    assert with_prefix(value, "B") == text


def test_durations_and_counts_are_words():
    assert [duration(s) for s in (0.25, 59, 90, 7200)] == ["250 ms", "59 s", "1.5 min", "2 h"]
    assert [count(1, "node"), count(1024, "node"), count(2, "strategy", "strategies")] == [
        "1 node", "1,024 nodes", "2 strategies",
    ]  # fmt: skip
