import pytest

from sciml.report.style import (
    add_titles,
    label_plainly,
    new_figure,
    plain_ticks,
    save_png,
    suite_style,
    write_literally,
)


@pytest.mark.parametrize("name", ["$(touch x)", "a$_b$", "${HOME}", "$", r"\$x^", "$\\frac{$"])
def test_names_are_no_formulas(name, tmp_path):
    with suite_style():
        figure = new_figure(3, 2)
        axes = figure.subplots()
        axes.plot([1, 2], [1, 2], label=name)
        axes.set(title=name, xlabel=name, ylabel=name, xticks=[1], xticklabels=[name])
        axes.legend()
        add_titles(figure, name, name)
        assert save_png(figure, tmp_path / "a").stat().st_size > 1000


@pytest.mark.parametrize(("ends", "minor"), [((1, 1000), False), ((2, 9), True)])
def test_powers_of_ten_are_formulas_and_so_are_numbers_between_them(ends, minor):
    with suite_style():
        figure = new_figure(3, 2)
        axes = figure.subplots()
        axes.semilogy([1, 2], ends)
        if minor:
            axes.yaxis.set_major_formatter("{x:g}")
        write_literally(figure)
        figure.canvas.draw()
        labels = [label for label in axes.get_yticklabels(minor=minor) if "mathdefault" in label.get_text()]
        assert labels
        assert all(label.get_parse_math() for label in labels)


def test_a_logarithmic_axis_has_plain_numbers():
    with suite_style():
        figure = new_figure(3, 2)
        axes = figure.subplots()
        axes.semilogy([1, 2], [0.002, 0.09])
        label_plainly(axes.yaxis)
        figure.canvas.draw()
        shown = {label.get_text() for minor in (True, False) for label in axes.get_yticklabels(minor=minor)}
        assert {"0.002", "0.005", "0.01", "0.02", "0.05"} <= shown
        assert not any("$" in text for text in shown)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(3, 11, [4, 6, 8, 10]), (0.03, 1.2, [0.05, 0.1, 0.2, 0.5, 1]), (1e-5, 1.0, [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])],
)
def test_ticks_of_logarithmic_axes_are_round_and_do_not_crowd(low, high, expected):
    axes = new_figure(3, 3).subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    plain_ticks(axes.yaxis, low, high)
    assert list(axes.get_yticks()) == pytest.approx(expected)
