"""Pictures of a run say units where there are any, and count values in whole numbers."""

from __future__ import annotations

import numpy as np
import pytest

from domains.materials.training import figures


def test_properties_without_a_unit_have_plain_axes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_png", lambda figure, path: drawn.append(figure) or path)
    values = np.linspace(1.0, 2.0, 5)
    example = {f"hardness.{key}": values for key in ("true", "predicted", "spread")}
    schema = {"labels": {"hardness": {"unit": ""}}}
    figures.draw_parity(example, schema, ["hardness"], tmp_path / "a.png")
    figures.draw_calibration({**example, "hardness.true": values + 0.1}, schema, ["hardness"], [], tmp_path / "b.png")
    texts = {text for figure in drawn for axes in figure.axes for text in (axes.get_xlabel(), axes.get_ylabel())}
    assert {"true", "predicted", "error", "spread", "rms error"} <= texts
    assert drawn[0].axes[-1].get_ylim() == pytest.approx((1, figures.FEWEST_SHADES))
