"""What is tried with spoiled input: a seed and a kind make a case, and each kind knows how to prepare and try it."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import torch
from ase.db import connect
from ase.io import write

from domains.climate.data.prepare import PrepareConfig
from domains.climate.data.prepare import prepare as prepare_climate
from domains.climate.data.readers import Source
from domains.climate.data.store import ClimateStore
from domains.climate.data.synthetic import synthetic_source
from domains.fluids.data.readers import open_sources
from domains.materials.data.prepare import PrepareConfig as PrepareMaterials
from domains.materials.data.prepare import prepare as prepare_materials
from domains.materials.data.readers.source import ReadOptions, read_structures
from domains.materials.data.store import MaterialsStore
from sciml.app.cli import main
from sciml.core.config import build, flat
from sciml.run.compose import Composition, compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_run
from sciml.run.spec import RunSpec, with_overrides
from sciml.testing.sessions import start_session
from tests.fuzz.mutations import VALUES, copied, spoil_any, spoil_bytes, spoil_json, spoil_place
from tests.reports import without_reports
from tests.unit.climate import weather_files
from tests.unit.fluids import flow_files
from tests.unit.materials.alloy_files import alloy
from tests.unit.materials.test_dialects import arrays_of, matpes

TRAINED = {
    "climate": (
        "data.augment=none", "model.depth=1", "model.embed_dim=16", "model.num_heads=2", "task.intervals=[24h]",
        "task.score_lead_times=[24h]", "data.path={base}/weather.zarr", "data.cache={base}/cache",
    ),
    "language": (
        "model.embed_dim=16", "model.depth=1", "model.num_heads=2", "model.context=16", "task.write_bytes=8",
        "data.splits={train: 20, valid: 0.3, test: 0.3}",
    ),
    "fluids": (
        "model.patch_size=4", "model.embed_dim=16", "model.depth=1", "model.num_heads=1", "model.rotary_max_harmonic=2",
        "data.path={base}/flows", "task.score_frames=[1]", "data.splits={train: 2, valid: 1, test: 1}",
        "reference_models=null",
    ),
    "materials": (
        "model.num_channels=8", "model.num_layers=1", "model.cutoff=4", "data.cutoff=4", "data.cache={base}/cache",
        "data.path={base}/alloys.extxyz", "data.splits={train: 0.6, valid: 0.2, test: 0.2}",
    ),
}  # fmt: skip
QUICK = ("climate", "language")
"""Domains whose runs are spoiled in the sample, too."""


@dataclass(frozen=True)
class Bases:
    """Makes the files and runs that are spoiled, each when it is first asked for."""

    folder: Path

    @cache  # noqa: B019
    def run(self, domain: str) -> Path:
        """Returns the folder of a small trained run."""
        if domain == "climate":
            synthetic_source(num_times=120, step_hours=12).to_zarr(self.folder / "weather.zarr", zarr_format=2)
        if domain == "fluids":
            (self.folder / "flows").mkdir()
            for number in range(4):
                flow_files.miniweather(self.folder / "flows" / f"{number}.nc", times=(0.0, 10.0, 20.0, 30.0))
        if domain == "materials":
            self.file("alloys.extxyz")
        overrides = [override.replace("{base}", str(self.folder)) for override in TRAINED[domain]]
        small = ["trainer.max_steps=2", "trainer.num_threads=1", "trainer.save_every=1", f"runs_dir={self.folder}"]
        with without_reports(), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            main("train", [f"domain={domain}", *overrides, *small, "run=one", "output=json"])
        return self.folder / domain / "one"

    @cache  # noqa: B019
    def composition(self, domain: str) -> Composition:
        """Returns the composed command line of a training."""
        return compose("train", [f"domain={domain}"])

    @cache  # noqa: B019
    def file(self, name: str) -> Path:
        """Returns a file, or a store, of some format."""
        path = self.folder / name
        WRITERS[name](path, self)
        return path


def _weather(path: Path, bases: Bases, writer: Callable[[Any, Path], Any]) -> None:
    writer(synthetic_source(num_times=8, step_hours=12), path)


def _climate_store(path: Path, bases: Bases) -> None:
    source = bases.file("wb2.zarr")
    prepare_climate(build(PrepareConfig, {"path": str(source), "out": str(path), "splits": SPLITS}))


def _materials_store(path: Path, bases: Bases) -> None:
    keys = {"path": str(bases.file("alloys.extxyz")), "out": str(path), "splits": SPLITS, "cutoff": 4.0}
    prepare_materials(build(PrepareMaterials, keys))


def _alloys(path: Path, bases: Bases, kind: str) -> None:
    frames = [alloy(seed) for seed in range(6)]
    if kind == "db":
        for frame in frames:
            connect(path).write(frame)
    else:
        write(path, frames[0] if kind in ("cif", "vasp", "xsf") else frames, format=kind)


def alloys() -> list[Any]:
    """Returns structures of one composition."""
    frames = [alloy(seed) for seed in range(6)]
    for frame in frames:
        frame.symbols = frames[0].symbols
    return frames


def write_groups(path: Path, frames: list[Any]) -> None:
    """Writes structures of one composition as a group of HDF5."""
    with h5py.File(path, "w") as file:
        for name, values in arrays_of(frames).items():
            file[f"CuNi/{name}"] = values


SPLITS = {"train": 0.6, "valid": 0.2, "test": 0.2}
WRITERS: Mapping[str, Callable[[Path, Bases], None]] = {
    "wb2.zarr": partial(_weather, writer=weather_files.write_wb2),
    "new.nc": partial(_weather, writer=weather_files.write_cds_new),
    "old.nc": partial(_weather, writer=weather_files.write_cds_old),
    "mini.nc": lambda path, _: flow_files.miniweather(path),
    "cgl.nc": lambda path, _: flow_files.cgl(path),
    "amira.am": lambda path, _: flow_files.amira(path),
    "image.vti": lambda path, _: flow_files.vti(path, flow_files.values(3, 2, 8, 20), "base64 zlib"),
    "well.hdf5": lambda path, _: flow_files.well(path),
    "variables.h5": lambda path, _: flow_files.pdebench_by_variable(path),
    "samples.h5": lambda path, _: flow_files.pdebench_by_sample(path),
    "alloys.extxyz": partial(_alloys, kind="extxyz"),
    "alloys.db": partial(_alloys, kind="db"),
    "alloys.traj": partial(_alloys, kind="traj"),
    "alloys.json": partial(_alloys, kind="json"),
    "records.json": lambda path, _: path.write_text(json.dumps(matpes(alloys()))),
    "alloys.npz": lambda path, _: np.savez(path, **arrays_of(alloys())),
    "alloys.h5": lambda path, _: write_groups(path, alloys()),
    "alloy.cif": partial(_alloys, kind="cif"),
    "POSCAR": partial(_alloys, kind="vasp"),
    "store.zarr": _climate_store,
    "alloys-store": _materials_store,
}
WEATHER = ("wb2.zarr", "new.nc", "old.nc")
FLOWS = ("mini.nc", "cgl.nc", "amira.am", "image.vti", "well.hdf5", "variables.h5", "samples.h5")
ALLOYS = ("alloys.extxyz", "alloys.db", "alloys.traj", "alloys.json", "alloy.cif", "POSCAR", "records.json",
          "alloys.npz", "alloys.h5")  # fmt: skip


def _spoil(path: Path, draw: random.Random) -> None:
    if path.is_dir():
        spoil_any(path, draw)
    elif draw.random() < 0.1:
        spoil_place(path, draw)
    elif path.suffix == ".nc" and draw.random() < 0.5:
        _spoil_netcdf(path, draw)
    else:
        spoil_bytes(path, draw)


def _spoil_netcdf(path: Path, draw: random.Random) -> None:
    """Changes what a file says and leaves it a good file of its format: numbers, units, attributes."""
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_mask(False)
        variable = file.variables[draw.choice(sorted(file.variables))]
        kind = draw.choice(["nan", "huge", "zero", "same", "reverse", "attribute"])
        if kind == "attribute" or variable.dtype == str:
            variable.setncattr(
                draw.choice(["units", "calendar", "scale_factor", "missing_value", "standard_name"]), "x"
            )
            return
        values = np.array(variable[:])
        flat_values = values.reshape(-1)
        if flat_values.size == 0:
            return
        place = draw.randrange(flat_values.size)
        is_float = values.dtype.kind == "f"
        if kind == "nan":
            flat_values[place] = np.nan if is_float else np.iinfo(values.dtype).min
        elif kind == "huge":
            flat_values[place] = 1e30 if is_float else np.iinfo(values.dtype).max
        elif kind == "zero":
            flat_values[:] = 0
        elif kind == "same":
            flat_values[:] = flat_values[0]
        else:
            flat_values[:] = flat_values[::-1].copy()
        variable[:] = values


def weather_file(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Reads spoiled weather, or prepares it."""
    path = copied(bases.file(draw.choice(WEATHER)), folder)
    _spoil(path, draw)
    if draw.random() < 0.5:
        source = Source.open(str(path))
        for field in source.fields.values():
            field.read(np.arange(min(2, len(source.times))), np.arange(max(1, len(field.levels))))
    else:
        prepare_climate(build(PrepareConfig, {"path": str(path), "out": str(folder / "out.zarr"), "splits": SPLITS}))


def flow_file(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Reads spoiled flows."""
    path = copied(bases.file(draw.choice(FLOWS)), folder)
    _spoil(path, draw)
    for source in open_sources(str(path)):
        assert source.interval > 0
        source.read(slice(0, 2))


def structures(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Reads spoiled structures."""
    path = copied(bases.file(draw.choice(ALLOYS)), folder)
    _spoil(path, draw)
    for _, structure in read_structures(str(path), ReadOptions()):
        assert np.isfinite(structure.positions).all()


def climate_store(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Opens and reads a spoiled store of weather."""
    path = copied(bases.file("store.zarr"), folder)
    spoil_any(path, draw)
    store = ClimateStore(path)
    assert store.statistics
    store.read(np.arange(len(store.times)))
    store.climatology(store.hours[:2])


def materials_store(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Opens and reads a spoiled store of structures."""
    path = copied(bases.file("alloys-store"), folder)
    spoil_any(path, draw)
    store = MaterialsStore.open(path)
    assert store.statistics
    for index in range(len(store)):
        store.structure(index)
        store.sample(index)


def run_folder(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Loads, inspects, verifies, reports or resumes a spoiled run."""
    _try_run(draw, bases, folder, draw.choice(QUICK))


def other_run_folder(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Does the same with runs that take longer to make."""
    _try_run(draw, bases, folder, draw.choice([domain for domain in TRAINED if domain not in QUICK]))


def _try_run(draw: random.Random, bases: Bases, folder: Path, domain: str) -> None:
    path = copied(bases.run(domain), folder)
    if draw.random() < 0.5:
        spoil_json(path / draw.choice(["run.json", "run.json", "schema.json", "checkpoints/best.json"]), draw)
    else:
        spoil_any(path, draw)
    action = draw.choice(["load", "inspect", "verify", "read", "resume", "report"])
    run = RunFolder(path)
    if action == "load":
        loaded = load_run(run)
        test = loaded.splits.test
        batch = test.collate([test.sample(0, np.random.default_rng(0))])
        if domain != "materials":  # forces need autograd's threads, which a forked process has not
            with torch.no_grad():
                loaded.task.predict(loaded.model, batch)
    elif action in ("inspect", "verify"):
        main("checkpoint", [f"path={path}", f"action={action}"])
    elif action == "read":
        assert all(isinstance(rows, list) for rows in (run.scores(), run.history()))
    elif action == "report":
        with without_figures():
            main("report", [f"run={path}"])
    else:
        composition = bases.composition(domain)
        resumed = replace(composition, config={**composition.config, "resume": str(path)})
        start_session(resumed)


@contextlib.contextmanager
def without_figures() -> Any:
    """Draws a report without its pictures, which take long."""
    import sciml.report.html as html

    drawn, html._draw = html._draw, lambda figure, folder: html.Picture(figure.name, figure.title, figure.caption, "")
    try:
        yield
    finally:
        html._draw = drawn


def key(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Builds the specification of a training in which a key is another value."""
    domain = draw.choice(["climate", "fluids", "materials", "language"])
    config = bases.composition(domain).config
    known = [name for name in flat(config) if name and not name.startswith("domain.")]
    name, value = draw.choice(known), draw.choice(VALUES)
    try:
        changed = with_overrides(config, {name: value})
    except TypeError:
        changed = {**config, name: value}
    RunSpec.build(changed)


VERBS = ("train", "evaluate", "forecast", "predict", "screen", "thermodynamics", "compare", "report", "prepare",
         "simulate", "checkpoint", "plan", "tune", "launch", "import", "doctor")  # fmt: skip
WORDS = ("", "=", "x", "a=", "=b", "~", "~x", "+x", "++x=1", "x=${y}", "x=[", "x={", "run=", "run=null", "run=../..",
         "run=/dev/zero", "runs_dir=/proc", "seed=nan", "seed=-1", "seed=1e400", "device=abacus", "checkpoint=nan",
         "output=xml", "--", "--config-dir", "--config-dir=", "x=1,2", "run='a\nb'", "domain=", "domain=x", "out=/",
         "\0=1", "ä=ö", "run=\"", "a.b.c=1", "lead_time=nanh", "lead_time=-3h", "trainer.max_steps=1e999")  # fmt: skip


def words(draw: random.Random, bases: Bases, folder: Path) -> None:
    """Runs a verb with words that make no sense; what it would need to work is left out."""
    verb = draw.choice(VERBS)
    chosen = draw.sample(WORDS, draw.choice([1, 1, 2]))
    if verb in ("plan", "tune", "train", "simulate", "prepare", "launch", "doctor", "import"):
        chosen.append(draw.choice(["nonsense=1", "optim.nonsense=1"]))
    main(verb, [*chosen, *([] if verb in ("prepare", "simulate", "doctor") else [f"runs_dir={folder}"])])


KINDS: Mapping[Callable[[random.Random, Bases, Path], None], int] = {
    run_folder: 150,
    other_run_folder: 60,
    weather_file: 90,
    flow_file: 100,
    structures: 90,
    climate_store: 40,
    materials_store: 40,
    key: 80,
    words: 50,
}
"""How many cases there are of each kind."""
