"""Sweeps a space of alloys with a trained model: ``scripts/screen.py elements=CoCuFeNiPd``."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from domains.materials.inference.predictor import Predictor
from domains.materials.screening.elastic import Elastic, elastic, elastic_dict, elastic_table
from domains.materials.screening.equilibrium import MemberModel
from domains.materials.screening.figures import screen_figures
from domains.materials.screening.hull import Hull, check_hull, read_hull
from domains.materials.screening.mixing import Candidate, Mixing, MixingResult
from domains.materials.screening.page import page
from domains.materials.screening.ranking import COLUMNS, Ranked, ranked, table
from domains.materials.screening.screen_config import ScreenConfig
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_directory, read_json, write_json, write_text
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.provenance import version
from sciml.core.result import CommandResult
from sciml.data.staging import StagedParts
from sciml.domain.protocol import LoadedModel

PART = 600
"""Structures, about, in a part, which a resumed screen makes whole or not at all."""
RECORD = "screen.json"
PAGE = "screen.html"
HULL_KEYS = ("hull", "hull_format", "hull_species", "hull_cell", "hull_length_unit")
OF_RANKING = ("rank_by", *HULL_KEYS, "elastic", "elastic_fmax", "top", "temperature", "out", "overwrite")
"""Keys that change nothing of what the model is asked."""


def screen(loaded: LoadedModel, config: ScreenConfig) -> CommandResult:
    """Judges every composition of a grid, ranks them and writes tables and pictures; whole or not at all.

    A screen that was stopped goes on where it was with the same settings and weights: finished parts wait in a hidden
    folder beside the one that is made.

    Raises:
        ConfigError: the model cannot judge these alloys, or the folder exists and is not to be replaced.
        RunError: the disk is full.
    """
    from ase.data import atomic_numbers

    model = Predictor(loaded, dtype=config.dtype, branch=config.branch)
    model.keep_branch(atomic_numbers[symbol] for symbol in config.symbols)
    out = Path(config.out) if config.out else loaded.directory / "screens" / config.name
    about = {"run": str(loaded.directory), "weights": fingerprint(loaded)}
    return make_screen(model, config, out, about, calibration=loaded.fitted.calibration)


def make_screen(
    model: MemberModel,
    config: ScreenConfig,
    out: Path,
    about: dict[str, str],
    calibration: Mapping[str, float] | None = None,
) -> CommandResult:
    """Screens with any model; see :func:`screen`.

    Args:
        about: what tells the model from others.
        calibration: factors of spreads, by name of the value.
    """
    if config.hull is not None:
        check_hull(config.hull, config.reading_hull)  # before anything is judged
    with lock_output(out, lambda path: (path / RECORD).exists(), overwrite=config.overwrite, keep_existing=False):
        mixing = Mixing(model, config, calibration)
        if config.rank_by == "spread" and mixing.members == 1:
            raise ConfigError(
                "a single model has no spread", key="rank_by", hint="mixing_enthalpy, or train with task.members=4"
            )
        start = time.monotonic()
        parts = StagedParts(out, _settings(config, about), ".json")
        results, structures = _judged(mixing, config, parts)
        seconds = time.monotonic() - start
        hull = _hull(mixing, config)
        rows = ranked(results, config.temperature, config.rank_by, hull)
        stiff = _elastic(mixing, config, rows)
        notes = [*_notes(mixing, config, rows), *_more_notes(config, rows, hull, stiff)]
        with atomic_directory(out) as folder:
            _write_table(folder / "screen.csv", rows, config)
            record = _record(mixing, config, about, notes)
            write_json(folder / RECORD, {**record, "elastic": [elastic_dict(row, one) for row, one in stiff]})
            figures = list(screen_figures(rows, mixing, config))
            drawn = [figure.render(folder / "figures" / figure.name) for figure in figures]
            write_text(folder / PAGE, page(record, rows, stiff, list(zip(figures, drawn, strict=True)), config))
        parts.remove()
    document = {"path": str(out), "candidates": len(rows), "structures": structures, "seconds": round(seconds, 2)}
    document["page"] = str(out / PAGE)
    best = [{"rank": rank, **row.to_dict()} for rank, row in enumerate(rows[: config.top], start=1)]
    speed = f", {structures * 60 / max(seconds, 1e-9):,.0f} a minute" if structures else ""
    lines = [
        f"screened  {len(rows):,} alloys: {structures:,} structures in {seconds:.0f} s{speed}",
        "",
        *table(rows[: config.top], config),
        "",
        *elastic_table(stiff),
        *(f"note      {note}" for note in notes),
        f"made      {out}",
    ]
    return CommandResult({**document, "notes": notes, "best": best}, "\n".join(lines))


def _hull(mixing: Mixing, config: ScreenConfig) -> Hull | None:
    """Returns the phases that alloys may come apart into, judged by the model."""
    if config.hull is None:
        return None
    assert mixing.predictor is not None  # checked when the screen began
    return read_hull(
        mixing.predictor, config.hull, config.symbols, mixing.reference, config.relaxing, config.reading_hull
    )


def _elastic(mixing: Mixing, config: ScreenConfig, rows: Sequence[Ranked]) -> list[tuple[Ranked, Elastic]]:
    """Returns elastic properties of the best."""
    found = []
    grid = {composition.name: composition for composition in config.grid.compositions()} if config.elastic else {}
    for row in track(rows[: config.elastic], "Elastic constants", total=min(config.elastic, len(rows))):
        assert mixing.predictor is not None
        one = row.found
        structures = mixing.structures(grid[one.composition], one.lattice, one.volume)
        found.append((row, elastic(mixing.predictor, structures, config.relaxing_strained)))
    return found


def _more_notes(
    config: ScreenConfig, rows: Sequence[Ranked], hull: Hull | None, stiff: Sequence[tuple[Ranked, Elastic]]
) -> Iterator[str]:
    """Yields what a reader must know of relaxing and of other phases."""
    unfinished = sum(row.found.unfinished for row in rows)
    if unfinished:
        yield f"{unfinished} structures were still moving after {config.max_steps} steps; raise max_steps"
    strained = sum(one.unfinished for _, one in stiff)
    if strained:
        yield f"{strained} cells of the elastic constants were still moving at the last step; raise max_steps"
    if hull is not None and hull.left_out:
        yield f"{hull.left_out} phase{'s' * (hull.left_out > 1)} of {config.hull}: of other elements, left out"
    if hull is not None:
        yield "phases of the hull have no entropy: alloys above it at 0 K may be below it at the temperature"


def fingerprint(loaded: LoadedModel) -> str:
    """Tells weights, and what they are normalized with, from others."""
    digest = hashlib.sha256()
    for tensors in (loaded.model.state_dict(), loaded.fitted.statistics.to_tensors()):
        for name in sorted(tensors):
            digest.update(name.encode())
            digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _judged(mixing: Mixing, config: ScreenConfig, parts: StagedParts) -> tuple[list[MixingResult], int]:
    """Returns what is predicted for all candidates, and how many structures that took now."""
    size = max(1, PART // (config.decorations * len(config.strains)))
    candidates = [(composition, lattice) for lattice in config.lattices for composition in config.grid.compositions()]
    groups = [candidates[first : first + size] for first in range(0, len(candidates), size)]
    results: list[MixingResult] = []
    structures = 0
    what = f"Screening, {size * config.decorations * len(config.strains)} structures each"
    for rows, new in track(_made_parts(mixing, groups, parts), what, total=len(groups)):
        results += rows
        structures += new * config.decorations * len(config.strains)
    return results, structures


def _made_parts(
    mixing: Mixing, groups: Sequence[Sequence[Candidate]], parts: StagedParts
) -> Iterator[tuple[list[MixingResult], int]]:
    """Judges what is not there yet; yields each part, and how much of it is new."""
    for number, group in enumerate(groups):
        path = parts.path(number)
        if path.exists():
            yield read_json(path, list[MixingResult]), 0
            continue
        rows = mixing.judge(group)
        write_json(path, [asdict(row) for row in rows])
        yield rows, len(rows)


def _settings(config: ScreenConfig, about: dict[str, str]) -> dict[str, Any]:
    """Returns what decides what the model predicts."""
    settings = {key: value for key, value in asdict(config).items() if key not in OF_RANKING}
    versions = {name: version(name) for name in ("sciml", "numpy", "torch")}
    return {**settings, **about, "versions": versions}


def _write_table(path: Path, rows: Sequence[Ranked], config: ScreenConfig) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["rank", *COLUMNS, *(f"x_{symbol}" for symbol in config.symbols)])
        writer.writeheader()
        for rank, row in enumerate(rows, start=1):
            shares = {f"x_{symbol}": round(row.found.fractions.get(symbol, 0.0), 6) for symbol in config.symbols}
            writer.writerow({"rank": rank, **row.to_dict(), **shares})


def _record(mixing: Mixing, config: ScreenConfig, about: dict[str, str], notes: list[str]) -> dict[str, Any]:
    return {
        "title": f"Mixing enthalpies of {'-'.join(config.symbols)}",
        "settings": {**_settings(config, about), "rank_by": config.rank_by, "temperature": config.temperature},
        "model": {"asked_for": mixing.name, "members": mixing.members, "data": mixing.model.schema.title},
        "pure": {
            symbol: {
                "lattice": mixing.best[symbol],
                "lattice_constants": {lattice: round(mixing.pure[symbol, lattice].a, 4) for lattice in config.lattices},
                "above_best": {lattice: round(mixing.above(symbol, lattice), 6) for lattice in config.lattices},
            }
            for symbol in config.symbols
        },
        "columns": COLUMNS,
        "notes": notes,
    }


def _notes(mixing: Mixing, config: ScreenConfig, rows: Sequence[Ranked]) -> Iterator[str]:
    """Yields what a reader of the table must know."""
    if isinstance(mixing.model, Predictor):
        yield from mixing.model.told_data_set()
    if mixing.members == 1:
        yield "no spread: a single model cannot tell what it does not know; train with task.members=4"
    elif mixing.calibration is None:
        yield "spreads are what members differ by, and were not set beside true errors"
    if config.decorations == 1:
        yield "no error of the random sites: one structure a composition; decorations=4 gives one"
    off = {lattice: mixing.largest_rounding(lattice) for lattice in config.lattices}
    if any(off.values()):
        sizes = " and ".join(f"{len(mixing.sites[lattice])} atoms ({lattice})" for lattice in off if off[lattice])
        yield (
            f"{sizes} hold steps of {config.step:g} only nearly: fractions are off by up to {max(off.values()):.3f}; "
            "values belong to the fractions in the columns x_"
        )
    stuck = sum(not row.found.relaxed for row in rows)
    if stuck:
        yield f"{stuck} alloys want a volume beyond the strains, and are at the end of these; widen strains"
    missed = [row.found.order_missed for row in rows if row.found.order_missed is not None]
    if missed:
        yield (
            f"the wanted short-range order is missed by {np.median(missed):.2f}, the median over alloys of the worst "
            "pair; the entropy is still that of a random alloy"
        )
    outside = sum(bool(row.found.outside) for row in rows)
    if outside:
        yield f"{outside} of {len(rows)} alloys lie outside what the model was trained on; see the column"
