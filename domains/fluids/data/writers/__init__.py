"""Writes simulated ensembles."""

from collections.abc import Callable
from pathlib import Path

from domains.fluids.data.writers.ensemble import Ensemble, write_ensemble
from domains.fluids.data.writers.miniweather import write_folder
from domains.fluids.data.writers.well import write_well

WRITERS: dict[str, Callable[[Path, Ensemble], None]] = {
    "ensemble": write_ensemble,
    "well": write_well,
    "miniweather": write_folder,
}

__all__ = ["WRITERS", "Ensemble"]
