"""The sentence under spectra is made from their numbers."""

import numpy as np

from sciml.report.spectra import Spectrum, SpectrumPanel, power_in_words

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
