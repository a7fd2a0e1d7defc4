"""Predicts the structures in a file with a trained model: ``scripts/predict.py structures=FILE``."""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from domains.materials.data.batch import GraphSample
from domains.materials.data.findings import Findings
from domains.materials.data.open_output import SUFFIXES, open_to_write
from domains.materials.data.readers.files import locate
from domains.materials.data.readers.source import FormatOptions
from domains.materials.data.readers.unlabeled import read_unlabeled
from domains.materials.data.samples import DTYPES
from domains.materials.data.structure import Structure
from domains.materials.dynamics.moving import check_free
from domains.materials.dynamics.relax import RelaxConfig, check_cell, relax
from domains.materials.inference.out_of_domain import KINDS, Reason, in_words, outside, severity
from domains.materials.inference.predicted_atoms import predicted_atoms
from domains.materials.inference.predictor import ATOMIC, Labels, Predictor
from domains.materials.training.ensemble import STD
from sciml.core.config import one_of
from sciml.core.errors import ConfigError, DataError
from sciml.core.files import disk_errors
from sciml.core.installation import as_typed_or_of_project
from sciml.core.outputs import new_output
from sciml.core.progress import track
from sciml.core.result import CommandResult
from sciml.domain.protocol import LoadedModel

if TYPE_CHECKING:
    from ase import Atoms

GRADIENTS = ("forces", "stress", "stresses")
RELAXED, RELAX_STEPS = "relaxed", "relax_steps"
"""Entries of relaxed structures: whether they have converged, and after how many steps."""
KEPT, SHOWN = 100, 5
"""Numbers of structures outside the training set whose reasons are kept for programs, and shown to people."""


@dataclass(frozen=True)
class PredictConfig(RelaxConfig, FormatOptions):
    """Holds the keys of ``scripts/predict.py``: which structures are read, and what is written.

    Attributes:
        relax: whether structures are relaxed first: ``none``, ``atoms`` (in their cell), or ``cell`` (atoms and all of
            the cell); many are at a time.
        fmax: largest force, eV/A, of an atom or of a row of the cell's coordinates, at which a structure has converged.
        max_steps: after which it is given up, and written as it is then, with ``relaxed=F``.
        structures: any file that ASE reads; a folder, pattern or list of them.
        out: ``.extxyz`` or ``.extxyz.xz``; null writes into the run's folder.
        properties: what is written, e.g. ``[energy, forces]``; null takes all that the model predicts. ``energies`` and
            ``stresses`` of atoms (six numbers in ASE's order) are written where they are named.
        branch: the data set whose head is read; null takes for each structure the first that knows all its elements.
        dtype: of everything that is computed.
        format: ASE's name of the files' format, or ``mtp``, ``lsms``, ...; null tells by name and content.
        species: elements of numbered types (MLIP's ``.cfg``, LAMMPS, DeepMD-kit), in their order.
        cell: three lengths or vectors, A, for LSMS, whose files have none; ``[0,0,0]`` is a cluster.
        length_unit: of positions in LSMS: Bohr or A.
        skip_bad: whether structures that cannot be, or that the model does not know, are left out and counted; else
            the first one ends the prediction, and no file is made.
    """

    structures: str | list[str] = ""
    out: str | None = None
    properties: list[str] | None = None
    branch: str | None = None
    dtype: str = "float32"
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if not self.structures:
            raise ConfigError("no structures are named", key="structures", hint="e.g. structures=alloys.extxyz")
        if self.out is not None and not self.out.endswith(SUFFIXES):
            raise ConfigError(f"{self.out!r} ends neither in {' nor in '.join(SUFFIXES)}", key="out")
        if self.properties is not None and not self.properties:
            raise ConfigError("nothing is asked for", key="properties", hint="e.g. properties=[energy]")
        one_of(self.dtype, DTYPES, "dtype")


class OutOfDomain:
    """Collects what is known of the structures outside the training set, in bounded memory.

    Attributes:
        count: how many there are.
        by_kind: how many of them each kind of reason concerns.
    """

    def __init__(self) -> None:
        self.count, self.by_kind = 0, Counter[str]()
        self._worst: list[tuple[str, list[Reason]]] = []

    def add(self, name: str, reasons: list[Reason]) -> None:
        """Takes account of a structure, which is one of them if there are reasons."""
        if reasons:
            self.count += 1
            self.by_kind.update({reason.kind for reason in reasons})
            self._worst = sorted([*self._worst, (name, reasons)], key=lambda one: severity(one[1][0]))[:KEPT]

    @property
    def worst(self) -> list[tuple[str, str]]:
        """Returns names and reasons, the gravest first."""
        return [(name, in_words(reasons)) for name, reasons in self._worst]


def predict(loaded: LoadedModel, config: PredictConfig) -> CommandResult:
    """Predicts structure by structure and writes one file, whole or not at all.

    Spreads stand beside what they belong to, ``energy_std`` beside ``energy``; the structures' own entries are kept.

    Raises:
        ConfigError: the file exists, or something is asked for that the model has no head for.
        DataError: structures that cannot be read or that the model cannot know.
        RunError: the disk is full.
    """
    predictor = Predictor(loaded, dtype=config.dtype, branch=config.branch)
    is_main = loaded.world is None or loaded.world.is_main
    if config.relax != "none" and loaded.world is not None and loaded.world.size > 1:
        raise ConfigError("structures are relaxed in one process", key="relax", hint="leave torchrun out")
    names = tuple(config.properties or predictor.predicts)
    predictor.refuse_without(*names)
    typed = [config.structures] if isinstance(config.structures, str) else config.structures
    files, folder = locate([as_typed_or_of_project(path) for path in typed]), loaded.directory / "predictions"
    outsiders, sets, count, unfinished = OutOfDomain(), Counter[str](), 0, 0
    findings = Findings()
    predicted = _predicted(predictor, files, config, names, findings)
    if not is_main:  # of several processes the first writes
        deque(predicted, maxlen=0)
        return CommandResult({}, "")
    with (
        new_output(config.out, folder, "prediction", SUFFIXES) as output,
        disk_errors(output.path),
        open_to_write(output.temporary) as out,
    ):
        for structure, atoms, sample, values in track(predicted, "predicting"):
            reasons = outside(sample, predictor.schema, predictor.statistics, values)
            outsiders.add(structure.name, reasons)
            unfinished += not atoms.info.get(RELAXED, True)
            data_set = predictor.data_set(structure)
            sets.update(data_set.values())
            wanted = {k: v for k, v in values.items() if _is_asked(k, names)}
            out.write(_frame(atoms, structure, wanted, reasons, data_set))
            count += 1
        if not count:
            raise DataError(f"no structure is left to predict; {findings.lines()[0]}")
    document = {
        "predicted": str(output.path),
        "structures": count,
        **({"left_out": findings.left_out} if config.skip_bad else {}),
        **({"relaxed": count - unfinished} if config.relax != "none" else {}),
        "properties": list(names),
        **({"data_sets": dict(sets)} if sets else {}),
        "outside": {
            "structures": outsiders.count,
            "by_reason": dict(outsiders.by_kind),
            "worst": [{"structure": name, "reasons": reasons} for name, reasons in outsiders.worst],
        },
    }
    lines = _lines(output.path, count, predictor, outsiders)
    lines[1:1] = _data_sets(sets)
    lines[1:1] = [f"left out   {line}" for line in findings.lines()]
    if config.relax != "none":
        left = f"; {unfinished} have not converged in {config.max_steps} steps" if unfinished else ""
        lines.insert(1, f"relaxed    {count - unfinished} of {count} to {config.fmax:g} eV/A{left}")
    return CommandResult(document, "\n".join(lines))


def _predicted(
    predictor: Predictor, files: Sequence[str], config: PredictConfig, names: Sequence[str], findings: Findings
) -> Iterator[tuple[Structure, Atoms, GraphSample, Labels]]:
    """Yields each structure, relaxed if so asked, with ASE's atoms as they were read, its graph and its predictions."""
    waiting: deque[tuple[Structure, Atoms]] = deque()

    def samples() -> Iterator[GraphSample]:
        known = _known(predictor, files, config, names, findings)
        for structure, atoms, sample in known if config.relax == "none" else _relaxed(predictor, known, config):
            waiting.append((structure, atoms))
            yield sample

    gradients, atomic = bool(set(names) & set(GRADIENTS)), bool(set(names) & set(ATOMIC))
    for sample, values in predictor.predict_graphs(samples(), gradients=gradients, atomic=atomic):
        yield (*waiting.popleft(), sample, values)


def _known(
    predictor: Predictor, files: Sequence[str], config: PredictConfig, names: Sequence[str], findings: Findings
) -> Iterator[tuple[Structure, Atoms, GraphSample]]:
    """Yields what can be predicted as it was read, with its graph; leaves out the rest where that is wanted."""
    for structure, atoms in read_unlabeled(files, config, findings=findings if config.skip_bad else None):
        sample: GraphSample | None = None
        with findings.leaving_out(config.skip_bad):
            if config.properties is not None and "stress" in names and not structure.volume:
                raise DataError(f"{structure.name}: stress needs a cell of three vectors; leave it out of properties")
            if config.relax != "none":
                check_free(atoms, structure.name)
            if config.relax == "cell":
                check_cell(structure)
            sample = predictor.sample(structure)
        if sample is not None:
            yield structure, atoms, sample


def _relaxed(
    predictor: Predictor, known: Iterable[tuple[Structure, Atoms, GraphSample]], config: RelaxConfig
) -> Iterator[tuple[Structure, Atoms, GraphSample]]:
    """Relaxes structures on the way; their atoms say whether they have converged and in how many steps."""
    waiting: deque[tuple[Structure, Atoms]] = deque()

    def structures() -> Iterator[Structure]:
        for structure, atoms, _ in known:
            waiting.append((structure, atoms))
            yield structure

    for one in relax(predictor, structures(), config):
        structure, atoms = waiting.popleft()
        atoms.info |= {RELAXED: one.converged, RELAX_STEPS: one.steps}
        settled = replace(one.structure, name=structure.name)
        yield settled, atoms, predictor.sample(settled)


def _frame(
    atoms: Atoms, structure: Structure, values: Labels, reasons: Sequence[Reason], data_set: Mapping[str, str]
) -> bytes:
    """Returns a structure in extended XYZ: its own entries, what is predicted, and whether it lies outside."""
    from ase.io.extxyz import write_extxyz

    labeled = predicted_atoms(atoms, structure, values, data_set, reasons)
    if (spread := f"stress{STD}") in labeled.info:
        labeled.info[spread] = labeled.info[spread].ravel()  # nine numbers in a row: a matrix would be JSON
    text = io.StringIO()
    write_extxyz(text, [labeled])
    return text.getvalue().encode()


def _data_sets(counts: Mapping[str, int]) -> list[str]:
    """Says whose heads were read, where the model has several."""
    if not counts:
        return []
    many = "; their energies need not share a zero, branch=NAME takes one for all" if len(counts) > 1 else ""
    return [f"data sets  {', '.join(f'{name} {count}' for name, count in counts.items())}{many}"]


def _is_asked(name: str, names: Sequence[str]) -> bool:
    return name.removesuffix(STD) in names


def _lines(path: Path, count: int, predictor: Predictor, outsiders: OutOfDomain) -> list[str]:
    lines = [f"predicted  {count} structure{'s' * (count != 1)} -> {path}"]
    if not predictor.has_spread:
        own = ", ".join(predictor.uncertain)
        none = "none: one model alone has no doubt; an ensemble has"
        whose = f"{own} alone; an ensemble has them of all" if own else none
        lines.append(f"spreads    {whose}, task.members=4 in training")
    if not outsiders.count:
        return [*lines, "outside    none: elements, pairs and distances are those of the training set"]
    kinds = ", ".join(f"{kind} {outsiders.by_kind[kind]}" for kind in KINDS if outsiders.by_kind[kind])
    lines.append(f"outside    {outsiders.count} of {count} lie outside the training set ({kinds}); the worst:")
    return lines + [f"           {name}: {reasons}" for name, reasons in outsiders.worst[:SHOWN]]
