"""Makes labeled alloy structures: ``scripts/simulate.py domain=materials``."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from domains.materials.data.open_output import open_to_write
from domains.materials.data.structure import Structure
from domains.materials.simulation.alloys import draw
from domains.materials.simulation.labeling import LABELERS, Labels, pure_crystal
from domains.materials.simulation.simulate_config import SimulateConfig
from sciml.core.files import atomic_file, write_json
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.provenance import version
from sciml.data.staging import StagedParts

# Decimals that are kept; finer ones would fill the file with noise. Lengths are rounded before the labels are
# computed, so that these belong to what is written.
LENGTH_DECIMALS = 4
LABEL_DECIMALS = {"energy": 5, "forces": 4, "stress": 6, "mixing_enthalpy": 5, "eam_density": 4}
PART = 200
"""Structures in a part, which a resumed run makes whole or not at all."""


def simulate(config: SimulateConfig) -> Path:
    """Draws structures, labels them and writes one extxyz file, whole or not at all.

    Beside it, a file of the same name with ``.json`` says how it was made. A run that was stopped goes on where it was
    with the same settings: finished parts wait in a hidden folder beside the file.

    Returns:
        Path of the file.

    Raises:
        ConfigError: the file exists and is not to be replaced.
        RunError: the disk is full.
    """
    path = Path(config.out)
    with lock_output(path, _is_ours, overwrite=config.overwrite, keep_existing=False):
        parts = StagedParts(path, _settings(config), ".extxyz")
        count = -(-config.count // PART)
        results = parts.make(partial(_make_part, config), count, config.workers)
        for _ in track(results, f"Simulating, {PART} structures each", total=count):
            pass
        write_json(_record_path(path), _record(config))
        with atomic_file(path) as temporary, open_to_write(temporary) as out:
            for number in range(count):
                with parts.path(number).open("rb") as part:
                    shutil.copyfileobj(part, out)
        parts.remove()
    return path


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _is_ours(path: Path) -> bool:
    return path.exists() and _record_path(path).exists()


def structures(config: SimulateConfig, first: int, last: int) -> list[Structure]:
    """Returns the labeled structures with numbers from ``first`` up to ``last``, rounded as they are written."""
    recipe, labeler = config.recipe(), LABELERS[config.labeler]()

    def constants(symbol: str, lattice: str) -> tuple[float, float]:
        crystal = pure_crystal(config.labeler, symbol, lattice)
        return crystal.a, crystal.c

    drawn = [draw(recipe, constants, config.seed, index) for index in range(first, last)]
    rounded = [
        replace(
            structure,
            positions=np.round(structure.positions, LENGTH_DECIMALS),
            cell=np.round(structure.cell, LENGTH_DECIMALS),
        )
        for structure in drawn
    ]
    labels = labeler.label(rounded)
    return [
        replace(structure, labels=_rounded(_with_enthalpy(structure, known, config)))
        for structure, known in zip(rounded, labels, strict=True)
    ]


def _with_enthalpy(structure: Structure, labels: Labels, config: SimulateConfig) -> Labels:
    """Adds the energy an atom above that of the pure elements' crystals, eV."""
    from ase.data import chemical_symbols

    pure = [pure_crystal(config.labeler, chemical_symbols[z]).energy for z in structure.atomic_numbers]
    return {**labels, "mixing_enthalpy": labels["energy"] / len(structure) - np.mean(pure)}


def _rounded(labels: Labels) -> dict[str, Any]:
    # Adding zero makes a positive zero of a negative one.
    return {name: np.round(value, LABEL_DECIMALS[name]) + 0.0 for name, value in labels.items()}


def _make_part(config: SimulateConfig, path: Path, number: int) -> None:
    from ase.io.extxyz import write_extxyz

    some = structures(config, number * PART, min((number + 1) * PART, config.count))
    with atomic_file(path) as temporary, temporary.open("w") as file:
        write_extxyz(file, [structure.to_atoms() for structure in some])


def _settings(config: SimulateConfig) -> dict[str, Any]:
    """Returns what decides what is in the file, as JSON."""
    values = {key: value for key, value in asdict(config).items() if key not in ("out", "workers", "overwrite")}
    return {**values, "versions": {name: version(name) for name in ("sciml", "numpy", "ase")}}


def _record(config: SimulateConfig) -> dict[str, Any]:
    return {
        "title": f"{config.labeler.upper()}-labeled alloys",
        "source": LABELERS[config.labeler].title,
        "license": "Apache-2.0, as the project that made it",
        "settings": _settings(config),
        "decimals": {"positions": LENGTH_DECIMALS, "cell": LENGTH_DECIMALS, **LABEL_DECIMALS},
    }
