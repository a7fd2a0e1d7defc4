"""Movies keep their colors, pause at their ends, and stay small."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sciml.report import gif
from sciml.report.style import new_figure

NOISE = np.random.default_rng(0).random((21, 60, 60))


@pytest.fixture
def movie(tmp_path):
    """Draws noise as a movie."""
    figure = new_figure(2.0, 2.0)
    image = figure.add_axes((0, 0, 1, 1), frameon=False).imshow(NOISE[0], cmap="RdBu_r", vmin=0, vmax=1)
    figure.set_layout_engine("none")

    def draw(name: str, cmaps=("RdBu_r",)):
        return gif.draw_gif(figure, lambda step: image.set_data(NOISE[step]), len(NOISE), cmaps, tmp_path / name)

    return draw


def test_every_frame_shows_its_field_in_its_colors(movie):
    from matplotlib import colormaps

    with Image.open(movie("two", ("viridis", "RdBu_r"))) as found:
        assert found.n_frames == 21
        for frame in (0, 12):
            found.seek(frame)
            pixels = np.asarray(found.convert("RGB").resize((60, 60), Image.Resampling.NEAREST)) / 255
            expected = colormaps["RdBu_r"](NOISE[frame])[..., :3]
            assert np.median(np.abs(pixels - expected).max(-1)) < 0.02


def test_what_is_named_as_changing_is_drawn_as_if_all_were(tmp_path):
    def drawn(name: str, tells: bool):
        figure = new_figure(2.0, 2.0)
        axes = figure.add_subplot()
        image, title = axes.imshow(NOISE[0], cmap="RdBu_r", vmin=0, vmax=1), figure.text(0.5, 0.95, "", ha="center")

        def update(step: int):
            image.set_data(NOISE[step])
            title.set_text(f"step {step}")
            return [image, *axes.spines.values(), title] if tells else None

        with Image.open(gif.draw_gif(figure, update, 5, ["RdBu_r"], tmp_path / name)) as found:
            frames = []
            for frame in range(found.n_frames):
                found.seek(frame)
                frames.append(np.asarray(found.convert("L")).astype(int))
        return np.stack(frames)

    difference = np.abs(drawn("part", tells=True) - drawn("whole", tells=False))
    assert (difference > 16).mean() < 0.01  # ticks lie below the spines


def test_pauses_at_both_ends_and_goes_on_for_ever(movie):
    with Image.open(movie("noise")) as found:
        assert found.info["loop"] == 0
        durations = []
        for frame in range(found.n_frames):
            found.seek(frame)
            durations.append(found.info["duration"])
    assert durations == [gif.PAUSE_MS, *[gif.FRAME_MS] * 19, gif.PAUSE_MS]


def test_what_is_too_large_loses_frames(movie, monkeypatch):
    whole = movie("whole").stat().st_size
    monkeypatch.setattr(gif, "LIMIT_BYTES", int(0.7 * whole))
    path = movie("part")
    assert path.stat().st_size < 0.7 * whole
    with Image.open(path) as found:
        assert found.n_frames == 11
        found.seek(5)
        assert found.info["duration"] == 2 * gif.FRAME_MS


def test_few_frames_are_kept_whatever_their_size(movie, monkeypatch):
    monkeypatch.setattr(gif, "LIMIT_BYTES", 1)
    with Image.open(movie("tiny")) as found:
        assert found.n_frames == 6


def test_first_and_last_are_among_the_spread_out():
    assert list(gif.spread_out(31, 4)) == [0, 10, 20, 30]
    assert list(gif.spread_out(3, 10)) == [0, 1, 2]
