import numpy as np
import torch

from domains.materials.data.batch import GraphBatch, GraphSample, LabelShape, collate
from domains.materials.data.neighbors import neighbor_list
from domains.materials.data.structure import Structure

from .alloy_files import alloy

LABELS = {"energy": LabelShape("graph"), "forces": LabelShape("node", (3,)), "stress": LabelShape("graph", (3, 3))}


def sample(seed, without=(), repeat=(1, 1, 1), branch=0):
    structure = Structure.from_atoms(alloy(seed, repeat=repeat))
    near = neighbor_list(structure, 4.0)
    labels = {name: value for name, value in structure.labels.items() if name not in without}
    return GraphSample(
        structure.atomic_numbers, structure.positions, structure.cell, structure.pbc,
        near.senders, near.receivers, near.shifts, branch, labels,
    )  # fmt: skip


def test_parts_of_a_batch_are_the_structures_themselves():
    samples = [sample(0), sample(1, repeat=(2, 1, 1)), sample(2)]
    batch = collate(samples, LABELS, torch.float64)
    assert batch.num_samples == 3
    assert batch.num_atoms.tolist() == [4, 8, 4]
    vectors = batch.positions[batch.senders] - batch.positions[batch.receivers]
    vectors += torch.einsum("ei,eij->ej", batch.shifts, batch.cell[batch.edge_graph])
    assert (batch.graph_index[batch.senders] == batch.edge_graph).all()
    assert (batch.graph_index[batch.receivers] == batch.edge_graph).all()
    for number, one in enumerate(samples):
        expected = one.positions[one.senders] + one.shifts @ one.cell - one.positions[one.receivers]
        np.testing.assert_allclose(vectors[batch.edge_graph == number], expected, atol=1e-12)
        np.testing.assert_array_equal(batch.labels["forces"][batch.graph_index == number], one.labels["forces"])
        assert batch.labels["energy"][number] == one.labels["energy"]


def test_missing_labels_are_masked_zeros():
    batch = collate([sample(0), sample(1, without=("stress", "forces"))], LABELS)
    assert batch.masks["stress"].tolist() == [True, False]
    assert batch.masks["energy"].tolist() == [True, True]
    assert batch.labels["stress"].shape == (2, 3, 3)
    assert not batch.labels["stress"][1].any()
    assert not batch.labels["forces"][4:].any()
    assert batch.labels["forces"][:4].any()


def test_a_label_that_no_structure_has_is_there_and_masked():
    batch = collate([sample(0)], {"charges": LabelShape("node")})
    assert batch.labels["charges"].shape == (4,)
    assert batch.masks["charges"].tolist() == [False]


def test_batches_are_float32_unless_asked_otherwise():
    for dtype in (torch.float32, torch.float64):
        batch = collate([sample(0)], LABELS, *([dtype] if dtype is torch.float64 else []))
        reals = (batch.positions, batch.cell, batch.shifts, batch.labels["stress"], batch.labels["forces"])
        assert {tensor.dtype for tensor in reals} == {dtype}
        assert batch.labels["energy"].dtype == torch.float64
        wholes = (batch.atomic_numbers, batch.senders, batch.receivers, batch.branch, batch.graph_index)
        assert {tensor.dtype for tensor in wholes} == {torch.int64}


def test_a_batch_moves_as_a_whole():
    batch = collate([sample(0, branch=3)], LABELS).to("meta")
    assert isinstance(batch, GraphBatch)
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == len(vars(batch)) - 2
    for tensor in (*tensors, *batch.labels.values(), *batch.masks.values()):
        assert tensor.device.type == "meta"


def test_an_isolated_atom_makes_a_graph_without_edges():
    alone = sample(0)
    alone = GraphSample(
        alone.atomic_numbers[:1], alone.positions[:1], np.zeros((3, 3)), np.zeros(3, bool),
        np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3), int),
    )  # fmt: skip
    batch = collate([alone, sample(1)], {})
    assert batch.num_atoms.tolist() == [1, 4]
    assert (batch.edge_graph == 1).all()
    assert int(batch.receivers.min()) == 1
