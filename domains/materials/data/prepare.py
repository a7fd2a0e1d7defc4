"""Makes one store of any source of structures, in bounded memory; an interrupted run goes on where it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from domains.materials.data import store_layout as layout
from domains.materials.data.check_conventions import check_conventions
from domains.materials.data.check_units import check_plausible
from domains.materials.data.composition import element_counts, element_table, systems
from domains.materials.data.findings import Findings
from domains.materials.data.key_names import typed
from domains.materials.data.labels import UNITS, parse_labels
from domains.materials.data.near_duplicates import near_duplicates
from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.readers.files import locate
from domains.materials.data.readers.source import ReadOptions, read_structures
from domains.materials.data.references import isolated_atoms, known_references
from domains.materials.data.schema import Label, MaterialsSchema, MaterialsStatistics
from domains.materials.data.splits import UNUSED, Described, assign, check_splits
from domains.materials.data.statistics import compute_statistics
from domains.materials.data.store import SPLITS, Arrays, save_statistics
from domains.materials.data.store_writer import StoreWriter
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, DataError
from sciml.core.files import disk_errors, read_json, write_json
from sciml.core.lock import lock_output
from sciml.core.progress import track
from sciml.core.types import FilePath, NonNegative, Positive
from sciml.data import files
from sciml.data.staging import Staging, fingerprint

RECORD_EDGES = 2_000_000
"""Edges after which what is done is recorded: at most these are done again after an interruption."""

Source = FilePath | list[FilePath] | dict[str, FilePath]


def default_splits() -> dict[str, Any]:
    return {"train": 0.8, "valid": 0.1, "test": 0.1}


@dataclass(frozen=True)
class Preparation(ReadOptions):
    """Decides, beside the source, what is in a store.

    Attributes:
        cutoff: of neighbor lists, A.
        splits: for each of train, valid and test a share, or a list of ``group:PATTERN``, ``system:Nb-Ta`` and
            ``order:4`` (number of elements). Lists are served first, shares are of what is left.
        split_by: what shares draw at random: ``structure``, or whole ``group``s or chemical ``system``s.
        split_seed: of that draw.
        references: energies of free atoms by element, eV, e.g. ``{Ni: -5.5}``; of others those of isolated atoms among
            the structures, which are then not trained on, or least squares.
        check_units: whether labels must look like what they are said to be; signs and orders that look wrong are warned
            of.
        title: what the data are, e.g. "VASP-PBE"; null takes the source's name.
    """

    cutoff: Positive[float] = 5.0
    splits: dict[str, Any] = field(default_factory=default_splits)
    split_by: str = "structure"
    split_seed: NonNegative[int] = 0
    references: dict[str, float] = field(default_factory=dict)
    check_units: bool = True
    title: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.references:
            from ase.data import atomic_numbers

            for symbol in self.references:
                one_of(symbol, atomic_numbers, self.key("references"))
        check_splits(self.splits, self.split_by, self.key("splits"), self.key("split_by"))

    def selected(self) -> dict[str, Any]:
        """Returns the keys that decide what is in a store, with their values."""
        return {name.name: getattr(self, name.name) for name in fields(Preparation)}


@dataclass(frozen=True)
class PrepareConfig(Preparation):
    """Holds the keys of ``scripts/prepare.py domain=materials``.

    Attributes:
        path: a file, folder or pattern, a list of them, or a mapping of data sets (branches) to them.
        out: the store to write; null makes one named after the source in the current folder.
        overwrite: whether a store that is there may be replaced.
    """

    path: Source = ""
    out: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.path:
            raise ConfigError("no source is named", key="path", hint="e.g. path=structures.extxyz")

    @property
    def target(self) -> Path:
        """Returns the path of the store to write."""
        return Path(self.out or f"{source_stem(self.path)}-store")


def branches_of(path: Source) -> dict[str, str | list[str]]:
    """Returns the sources by name of the data set."""
    return dict(path) if isinstance(path, Mapping) else {"main": path}


def source_stem(path: Source) -> str:
    """Returns what a store is named after: ``nbmotaw`` for ``data/nbmotaw.extxyz.xz``."""
    if isinstance(path, Mapping):
        return "-".join(path)
    return files.source_stem(path if isinstance(path, str) else path[0])


def prepare(config: PrepareConfig, *, keep_existing: bool = False) -> Path:
    """Makes a store of a source.

    Args:
        keep_existing: whether a store that another process has made in the meantime is good as it is.

    Returns:
        The store's path.

    Raises:
        ConfigError: the store is there already; labels, species or splits that do not fit the data.
        DataError: the source is missing, empty or damaged, or says what cannot be.
        RunError: the disk is full; running it again goes on from there.
    """
    out = config.target
    with lock_output(out, layout.is_store, overwrite=config.overwrite, keep_existing=keep_existing) as needed:
        if not needed:
            return out
        staging = Staging(out, store_fingerprint(config.path, config))
        with disk_errors(out):
            writer = StoreWriter(staging)
        try:
            _gather(config, writer)
            header = _describe(config, writer)
        except DataError:
            writer.close()
            staging.remove()  # a wrong file will be another one when it is read again
            raise
        finally:
            with contextlib.suppress(OSError):  # what is not on disk is gone already, and was said
                writer.close()
        with disk_errors(out):
            write_json(staging.store / layout.STORE, header)
            staging.publish()
    return out


def store_fingerprint(path: Source, preparation: Preparation) -> str:
    """Returns a short hash of the source files and of everything that decides what is stored."""
    files = {name: locate(source) for name, source in branches_of(path).items()}
    branches = {name: len(some) for name, some in files.items()}
    every = [file for some in files.values() for file in some]
    return fingerprint(every, layout.VERSION, branches, preparation.selected())


def _gather(config: PrepareConfig, writer: StoreWriter) -> None:
    """Reads all structures into the growing store, with their neighbors."""
    findings = writer.findings
    for branch, (name, source) in enumerate(branches_of(config.path).items()):
        files = locate(source)
        recorded = writer.arrays["senders"].rows
        position = writer.position(branch)
        only = len(branches_of(config.path)) == 1
        structures = read_structures(source, config, branch=branch, start=position, complete=only, findings=findings)
        for position, structure in track(structures, f"reading structures of {name if name != 'main' else files[0]}"):
            with findings.leaving_out(config.skip_bad):
                neighbors = neighbor_list(structure, config.cutoff)
                with disk_errors(writer.folder):
                    writer.append(structure, neighbors, files[position[0]])
            position = (position[0], position[1] + 1)
            if writer.arrays["senders"].rows - recorded > RECORD_EDGES:
                with disk_errors(writer.folder):
                    writer.record(branch, position)
                recorded = writer.arrays["senders"].rows
        with disk_errors(writer.folder):
            writer.record(branch, position)
    if not writer.num_structures:
        raise DataError(f"{config.path}: no structure is left; {'; '.join(findings.lines())}")
    with disk_errors(writer.folder):
        writer.finish()


def _describe(config: PrepareConfig, writer: StoreWriter) -> dict[str, Any]:
    """Checks, splits and statistics of everything that was read; what ``store.json`` will say."""
    labels = writer.labels
    if not labels:
        raise DataError(
            f"{config.path}: no structure has a label; name one with {typed('labels.energy')}=KEY "
            f"(usual: {', '.join(UNITS)})"
        )
    for name in parse_labels(config.labels)[0]:
        if name not in labels:
            raise ConfigError(
                "no structure of any data set has it", key=typed(f"labels.{name}"), hint=f"found: {', '.join(labels)}"
            )
    arrays = Arrays(writer.folder, labels)
    elements = element_table(arrays.atomic_numbers)
    branches = tuple(branches_of(config.path))
    title = config.title or source_stem(config.path)
    schema = MaterialsSchema(
        elements,
        config.cutoff,
        {name: Label(spec["level"], tuple(spec["shape"]), spec["unit"]) for name, spec in labels.items()},
        branches,
        title,
    )
    warnings: list[str] = []
    if config.check_units:
        warnings = check_conventions(arrays, elements)
        # energies of one atom as totals look like those of several units, and that is said already
        check_plausible(arrays, elements, schema.symbols, energies=not any(w.startswith("energies") for w in warnings))
    counts = element_counts(arrays.atomic_numbers, arrays.atom_offsets, elements)
    groups = read_json(writer.folder / layout.GROUPS, list[str])
    described = Described(
        [groups[number] for number in arrays.group],
        systems(counts, schema.symbols),
        (counts > 0).sum(1),
        arrays.key,
        near_duplicates(arrays),
    )
    assigned = assign(config.splits, config.split_by, config.split_seed, described)
    split = assigned.splits
    alone = isolated_atoms(arrays)
    if not alone.all():
        split[alone] = UNUSED
    known = known_references(arrays, elements, len(branches), config.references)
    schema = replace(schema, exact_references=bool(np.isfinite(known).any()))
    train = np.flatnonzero(split == SPLITS.index("train"))
    statistics = compute_statistics(arrays, train, elements, known) if len(train) else None
    with disk_errors(writer.folder):
        np.save(layout.array_path(writer.folder, "split"), split)
        if statistics is not None:
            save_statistics(writer.folder, statistics)
    sizes = {name: int((split == number).sum()) for number, name in enumerate(SPLITS)}
    fields = _found(writer.findings, schema, arrays)
    notes = [*missing_labels(schema), *writer.findings.lines()]
    if alone.any():
        notes.append(f"{int(alone.sum())} isolated atoms give exact references, and are in no split")
    notes += assigned.notes(described)
    notes += [f"warning: {warning}" for warning in warnings]
    _tell(schema, arrays, fields, sizes, statistics, notes)
    return {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "schema": asdict(schema),
        "found": fields,
        "not_used": dict(writer.findings.unused),
        "warnings": warnings,
        "left_out": {"structures": writer.findings.left_out, "reasons": writer.findings.reasons},
        "splits": sizes,
        "duplicates_left_out": assigned.dropped,
        "preparation": config.selected(),
        "sources": [Path(file).name for file in writer.sources],
    }


def _found(findings: Findings, schema: MaterialsSchema, arrays: Arrays) -> dict[str, str]:
    """Describes for each label its source, unit and sign, and how many structures have it."""
    return {
        name: f"{findings.sources(name)}; {int(arrays.masks[name].sum())} of {len(arrays)} structures"
        for name in schema.labels
    }


def missing_labels(schema: MaterialsSchema) -> list[str]:
    """Says which gradients of the energy the data do not have."""
    if "energy" not in schema.labels:
        return []
    return [
        f"no {name} label: {name}_weight has no effect" for name in ("forces", "stress") if name not in schema.labels
    ]


def _tell(
    schema: MaterialsSchema,
    arrays: Arrays,
    found: Mapping[str, str],
    sizes: Mapping[str, int],
    statistics: MaterialsStatistics | None,
    notes: Sequence[str],
) -> None:
    """Reports what was found on stderr."""
    lines = [
        f"{len(arrays)} structures, {len(arrays.positions)} atoms of {', '.join(schema.symbols)}, "
        f"{len(arrays.senders)} edges within {schema.cutoff:g} A",
        *found.values(),
        *notes,
        "splits: " + ", ".join(f"{name} {count}" for name, count in sizes.items()),
    ]
    if statistics is not None and "energy" in schema.labels:
        for branch, row in zip(schema.branches, statistics.references.tolist(), strict=True):
            energies = ", ".join(f"{s} {e:.4f}" for s, e in zip(schema.symbols, row, strict=True))
            lines.append(f"reference energies ({branch}), eV: {energies}")
        lines.append(f"energies spread by {float(statistics.energy_std):.4g} eV/atom about them")
    for line in lines:
        print(line, file=sys.stderr)
