"""The sentence under spectra is made from their numbers."""

import itertools

import numpy as np
import pytest

from sciml.report import spectra
from sciml.report.spectra import Spectrum, SpectrumPanel, draw_spectra, power_in_words

WAVES = np.arange(1, 33)
TRUTH = Spectrum("truth", WAVES, WAVES**-3.0, 1.0, is_truth=True)


def panel(factor):
    return SpectrumPanel([Spectrum("forecast", WAVES, TRUTH.power * factor, 1.0), TRUTH], "K")


def test_a_sharp_forecast_is_called_sharp():
    said = power_in_words([panel(np.ones(32)), panel(np.ones(32))])
    assert said.startswith("The latest forecast shown has the truth's power 1 times at wavenumbers 1 to 8, ")
    assert said.endswith("as sharp as the truth.")


def test_what_is_smoothed_and_what_is_made_up_are_told():
    said = power_in_words([panel(np.where(WAVES <= 8, 1.0, np.where(WAVES <= 16, 0.5, 12.0)))])
    assert "0.5 times at wavenumbers 9 to 16, 12 times at wavenumbers 17 to 32" in said
    assert said.endswith(": what it lacks it has smoothed away, what it has too much is noise.")


def test_without_a_truth_nothing_is_said():
    alone = SpectrumPanel([Spectrum("forecast", WAVES, TRUTH.power, 1.0)], "K")
    still = SpectrumPanel([Spectrum("forecast", WAVES, 0 * TRUTH.power, 1.0), TRUTH], "K")
    assert power_in_words([alone]) == power_in_words([still]) == ""


@pytest.mark.parametrize(("largest", "numbers"), [(8.0, ["0.5", "1", "2", "5"]), (500.0, ["1", "10", "100"])])
def test_numbers_of_wavenumbers_are_plain_and_apart(monkeypatch, tmp_path, largest, numbers):
    shown = []
    monkeypatch.setattr(spectra, "save_png", lambda figure, path: shown.append(figure))
    wavenumber = np.geomspace(0.45, largest, 16)
    panels = {name: SpectrumPanel([Spectrum("forecast", wavenumber, 1 / wavenumber, 0.0)], "1") for name in "abc"}
    draw_spectra(panels, "wavenumber", "", tmp_path / "spectra")
    shown[0].canvas.draw()
    for axes in shown[0].axes:
        boxes = [
            (label.get_text(), label.get_window_extent())
            for label in axes.xaxis.get_ticklabels(which="both")
            if label.get_text() and axes.get_xlim()[0] <= label.get_position()[0] <= axes.get_xlim()[1]
        ]
        assert [text for text, _ in boxes] == numbers
        assert all(one.x1 < other.x0 for (_, one), (_, other) in itertools.pairwise(boxes))
