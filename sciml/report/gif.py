"""Moving pictures: laid out once, and with one palette for all frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.core.files import atomic_file
from sciml.report.style import write_literally

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

FRAME_MS = 260
PAUSE_MS = 1300
GRAYS = 24
DPI = 100
LIMIT_BYTES = 3_000_000
MIN_FRAMES = 8
MOST_FRAMES = 40


def draw_gif(
    figure: Figure,
    update: Callable[[int], Sequence[Artist] | None],
    count: int,
    cmaps: Sequence[str],
    path: Path,
    *,
    most: int = MOST_FRAMES,
) -> Path:
    """Writes a GIF next to the given stem; it pauses at both ends.

    A picture of more than ``LIMIT_BYTES`` loses every second frame, and shows the others twice as long, until it is
    smaller or only ``MIN_FRAMES`` are left.

    Args:
        figure: with everything in it that does not change.
        update: changes its contents to those of a frame. The layout is that of the last one. Where it returns what it
            changes, from the lowest to the highest, all else is drawn only once.
        count: number of frames, at least 2.
        cmaps: color maps of all that is colored.
        most: frames that are shown; of more, so many are spread over all of them.
    """
    write_literally(figure)
    frames = _frames(figure, update, spread_out(count, most).tolist(), _palette(cmaps))
    written = path.with_suffix(".gif")
    duration = FRAME_MS
    with atomic_file(written) as temporary:
        _save(frames, duration, temporary)
        while temporary.stat().st_size > LIMIT_BYTES and len(frames) > MIN_FRAMES:
            frames, duration = [*frames[:-1:2], frames[-1]], 2 * duration
            _save(frames, duration, temporary)
    return written


def spread_out(count: int, most: int) -> np.ndarray:
    """Returns at most so many of the numbers from 0 to ``count - 1``, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _frames(
    figure: Figure, update: Callable[[int], Sequence[Artist] | None], numbers: Sequence[int], palette: Any
) -> list[Any]:
    from PIL import Image

    figure.set_dpi(DPI)
    changing = update(numbers[-1])
    canvas: Any = figure.canvas
    canvas.draw()
    figure.set_layout_engine("none")
    for artist in changing or ():
        artist.set_animated(True)  # so that it is left out of what is drawn once
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for number in numbers:
        changing = update(number)
        if changing is None:
            canvas.draw()
        else:
            canvas.restore_region(background)
            for artist in changing:
                figure.draw_artist(artist)
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        frames.append(Image.fromarray(pixels.copy()).quantize(palette=palette, dither=Image.Dither.NONE))
    return frames


def _save(frames: Sequence[Any], duration: int, path: Path) -> None:
    durations = [PAUSE_MS, *[duration] * (len(frames) - 2), PAUSE_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=False)


def _palette(cmaps: Sequence[str]) -> Any:
    """Returns the color maps' own colors, and grays for the rest: nothing flickers between frames, nothing is
    banded.
    """
    from matplotlib import colormaps
    from PIL import Image

    each = np.linspace(0, 1, (256 - GRAYS) // len(cmaps))
    colors = [(colormaps[cmap](each)[:, :3] * 255).round().astype(np.uint8) for cmap in cmaps]
    grays = np.linspace(0, 255, GRAYS).round().astype(np.uint8)[:, None].repeat(3, axis=1)
    image = Image.new("P", (1, 1))
    image.putpalette(np.concatenate([*colors, grays]).tobytes())
    return image
