import pytest

from sciml.report.style import add_titles, label_plainly, new_figure, save_png, suite_style, write_literally


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
