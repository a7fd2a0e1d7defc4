"""A trained potential as LAMMPS's ``pair_style mliap unified`` calls it, in one file.

LAMMPS hands over pairs of local atoms with all others, ghosts included; between layers of the network it brings states
of ghosts up to date, and in the backward pass it adds their gradients to those of the atoms that they are images of. So
each layer looks one cutoff far, on any number of processes. This needs LAMMPS of July 2025 or later with KOKKOS and
ML-IAP's Python coupling.

The file is a pickle, because LAMMPS reads nothing else here; in it are the files of an exported model, as bytes.
"""

from __future__ import annotations

import pickle
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from domains.materials.data.batch import GraphBatch
from domains.materials.inference.predictor import Predictor
from domains.materials.training.potential import ENERGY
from sciml.core.errors import ConfigError, RunError
from sciml.nn.message import NodeStates

FILE, EXAMPLE = "lammps.pkl", "in.lammps"


class LammpsData(Protocol):
    """Describes what LAMMPS hands over (its ``MLIAPDataPy``); arrays live where LAMMPS computes.

    Attributes:
        nlocal, ntotal: atoms of this process, and with ghosts.
        elems: the element of each atom, as a place in ``element_types``.
        pair_i, pair_j: ends of each pair; the first is local.
        rij: from the first to the second, A.
        eatoms: energies of local atoms, to be filled.
        energy: their sum, to be set.
    """

    nlocal: int
    ntotal: int
    elems: Any
    pair_i: Any
    pair_j: Any
    rij: Any
    eatoms: Any
    energy: Any

    def forward_exchange(
        self, given: Float[Tensor, "atom *any"], filled: Float[Tensor, "atom *any"], width: int
    ) -> None:
        """Fills rows of ghosts with those of the atoms that they are images of."""
        ...

    def reverse_exchange(
        self, given: Float[Tensor, "atom *any"], filled: Float[Tensor, "atom *any"], width: int
    ) -> None:
        """Adds rows of ghosts to those of the atoms that they are images of."""
        ...

    def update_pair_forces(self, pull: Float[Tensor, "pair 3"]) -> None:
        """Adds what each pair pulls to the forces on its ends, and to the virial."""
        ...


class LammpsModel:
    """Computes energies and forces for LAMMPS.

    Args:
        files: of an exported model, by name.
        branch: the data set whose head is read; None takes the one with most of the elements.
        dtype: of what the model computes.

    Attributes:
        element_types: symbols, in the order in which ``elems`` counts them.
        rcutfac: half the cutoff, as LAMMPS wants it.
    """

    interface, ndescriptors, nparams = None, 1, 1

    def __init__(self, files: dict[str, bytes], branch: str | None = None, dtype: str = "float64") -> None:
        self.files, self.branch, self.dtype = files, branch, dtype
        schema = self.predictor.schema
        self.branch = schema.branches[self.predictor.keep_branch(schema.elements)]
        self.element_types = list(schema.symbols)
        self.rcutfac = 0.5 * float(self.predictor.cutoff)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "predictor"}

    @cached_property
    def predictor(self) -> Predictor:
        """Returns the model, opened when it is first needed."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            return Predictor.open(folder, dtype=self.dtype, branch=self.branch)

    def compute_descriptors(self, data: LammpsData) -> None:
        """Does nothing: there are no descriptors."""

    def compute_gradients(self, data: LammpsData) -> None:
        """Does nothing: there are no descriptors."""

    def compute_forces(self, data: LammpsData) -> None:
        """Fills energies of atoms and adds the pull of every pair to forces and virial.

        Raises:
            RunError: this LAMMPS cannot exchange states of ghosts.
        """
        if not hasattr(data, "forward_exchange"):
            raise RunError("this LAMMPS exchanges no states of ghosts: start it with KOKKOS, -k on -sf kk")
        energies, pull = self.evaluate(data)
        torch.as_tensor(data.eatoms)[: data.nlocal].copy_(energies)
        data.energy = float(energies.sum())
        data.update_pair_forces(pull.contiguous())

    def evaluate(self, data: LammpsData) -> tuple[Float[Tensor, "local"], Float[Tensor, "pair 3"]]:
        """Returns the energies of local atoms (eV), and the change of all energies with each pair's vector (eV/A)."""
        predictor, task = self.predictor, self.predictor.task
        batch = self._batch(data)
        vectors = batch.shifts.requires_grad_()  # in a cell of unit vectors, with all atoms at the origin
        with torch.enable_grad():
            exchange = _Exchange(data)
            members = task.evaluate(
                predictor.model, batch, create_graph=False, gradients=False, atomic=True, exchange=exchange
            )
            energies = torch.stack([member["energies"][: data.nlocal] for member in members]).mean(0)
            (pull,) = torch.autograd.grad(energies.sum(), vectors)
        pair = task.pair_result(batch, vectors.detach())
        if pair is not None and pair.pull is not None:
            pull = pull + pair.pull
        return energies.detach().double(), pull.double()

    def _batch(self, data: LammpsData) -> GraphBatch:
        """Returns the graph of local atoms and, as a second structure, ghosts."""
        predictor = self.predictor
        device, ghosts = predictor.device, data.ntotal - data.nlocal
        numbers = torch.tensor(predictor.schema.elements, device=device)
        elements = torch.as_tensor(data.elems, device=device).long()[: data.ntotal]
        sizes = torch.tensor([data.nlocal, ghosts], device=device)
        vectors = torch.as_tensor(data.rij, device=device).to(predictor.dtype).reshape(-1, 3)
        return GraphBatch(
            atomic_numbers=numbers[elements],
            positions=vectors.new_zeros(data.ntotal, 3),
            cell=torch.eye(3, dtype=vectors.dtype, device=device).expand(2, 3, 3).clone(),
            pbc=torch.zeros(2, 3, dtype=torch.bool, device=device),
            senders=torch.as_tensor(data.pair_j, device=device).long(),
            receivers=torch.as_tensor(data.pair_i, device=device).long(),
            shifts=vectors.detach().clone(),
            graph_index=torch.tensor([0, 1], device=device).repeat_interleave(sizes),
            edge_graph=torch.zeros(len(vectors), dtype=torch.int64, device=device),
            num_atoms=sizes,
            branch=torch.full((2,), predictor.branch, dtype=torch.int64, device=device),
        )


class _Exchange:
    """Brings states of ghosts up to date through LAMMPS."""

    def __init__(self, data: LammpsData) -> None:
        self.data = data

    def __call__(self, states: NodeStates) -> NodeStates:
        scalars, vectors, tensors = (None if kind is None else _Ghosts.apply(kind, self.data) for kind in states)
        assert scalars is not None
        return NodeStates(scalars, vectors, tensors)


class _Ghosts(torch.autograd.Function):
    """Replaces states of ghosts by those of their atoms; gradients go the other way."""

    @staticmethod
    def forward(ctx: Any, states: Float[Tensor, "atom *any"], data: LammpsData) -> Float[Tensor, "atom *any"]:
        ctx.data = data
        flat = states.flatten(1).contiguous()
        filled = torch.empty_like(flat)
        data.forward_exchange(flat, filled, flat.shape[1])
        return filled.view_as(states)

    @staticmethod
    def backward(ctx: Any, *grads: Float[Tensor, "atom *any"]) -> tuple[Float[Tensor, "atom *any"], None]:
        flat = grads[0].flatten(1).contiguous()
        filled = torch.empty_like(flat)
        ctx.data.reverse_exchange(flat, filled, flat.shape[1])
        filled[ctx.data.nlocal :] = 0  # states of ghosts before the exchange count nothing
        return filled.view_as(grads[0]), None


def write_for_lammps(folder: Path, branch: str | None = None) -> None:
    """Writes the file that LAMMPS reads, and an input that shows how, beside an exported model.

    Args:
        branch: the data set whose head is read; None takes the one with most of the elements.

    Raises:
        ConfigError: the model has no forces, more than energies to predict, or no such data set.
    """
    kept = [file for file in sorted(folder.iterdir()) if file.suffix in (".json", ".safetensors")]
    files = {file.name: file.read_bytes() for file in kept}
    model = LammpsModel(files, branch)
    targets = tuple(model.predictor.config.targets)
    if targets != (ENERGY,) or not model.predictor.config.has_gradients:
        raise ConfigError(f"LAMMPS wants energies with forces, the model learns {', '.join(targets)}", key="to")
    with (folder / FILE).open("wb") as file:
        pickle.dump(model, file)
    schema, statistics = model.predictor.schema, model.predictor.statistics
    lacking = statistics.lacking(schema.elements, schema.elements, model.predictor.branch)
    known = zip(schema.elements, schema.symbols, strict=True)
    symbols = " ".join(symbol for number, symbol in known if number not in lacking)
    several = len(schema.branches) > 1
    (folder / EXAMPLE).write_text(
        f"# lmp -k on -sf kk -pk kokkos newton on neigh half -in {EXAMPLE}\n"
        + (f"# energies and forces are those of the data set {model.branch} (export branch=)\n" if several else "")
        + "# types of atoms in alloy.data: their elements stand in pair_coeff, in the order of the types\n"
        "units metal\natom_style atomic\natom_modify map yes\nnewton on\nread_data alloy.data\n"
        f"pair_style mliap unified {FILE} 0\npair_coeff * * {symbols}\n"
        "fix 1 all nvt temp 300 300 0.1\ntimestep 0.002\nthermo 100\nrun 1000\n"
    )
