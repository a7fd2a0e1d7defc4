"""The shared graph network: symmetries, smoothness, sizes, its configuration against nonsense."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.installation import CONF
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World
from sciml.models.gnn import FORCE_LAYERS, GNN, LAYERS, GNNConfig
from sciml.nn.initialization import initialize
from sciml.parallel.config import ParallelConfig
from sciml.parallel.model import parallelize
from tests.atoms import Atoms, EnergyModel, connect, crystal, drawn, energy_and_forces, molecule

CUTOFF = 3.0
CONFIG = GNNConfig(num_channels=8, num_layers=2, cutoff=CUTOFF, num_radial=4, num_heads=2)
VARIANTS = [replace(CONFIG, layer=layer, radial=radial) for layer in FORCE_LAYERS for radial in ("bessel", "gaussian")]
VARIANTS.append(replace(CONFIG, layer="tensornet", correlation=3))


def name_of(config: GNNConfig) -> str:
    return f"{config.layer}-{config.radial}{'-3' if config.correlation == 3 else ''}"


def some_rotation(sign: float = 1.0) -> torch.Tensor:
    """A rotation, or with -1 a reflection."""
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    return q * torch.linalg.det(q) * sign


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "reflection"])
@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_energies_stay_and_forces_turn_with_the_structure(config, sign):
    model, atoms, turn = drawn(EnergyModel(config)), crystal(), some_rotation(sign)
    energy, forces = energy_and_forces(model, atoms)
    turned = replace(atoms, positions=atoms.positions @ turn, cells=atoms.cells @ turn)
    turned_energy, turned_forces = energy_and_forces(model, turned)
    assert forces.abs().max() > 1e-3
    torch.testing.assert_close(turned_energy, energy, rtol=0, atol=1e-10)
    torch.testing.assert_close(turned_forces, forces @ turn, rtol=0, atol=1e-10)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "reflection"])
def test_vectors_turn_with_the_structure(sign):
    model, atoms, turn = drawn(EnergyModel(CONFIG, makes_vectors=True)), crystal(), some_rotation(sign)
    arguments = atoms.elements, atoms.edge_vectors(), atoms.senders, atoms.receivers, len(atoms.elements)
    states = model.encoder(*arguments)
    turned = model.encoder(arguments[0], arguments[1] @ turn, *arguments[2:])
    assert states.vectors.abs().max() > 1e-3
    torch.testing.assert_close(turned.scalars, states.scalars, rtol=0, atol=1e-10)
    torch.testing.assert_close(turned.vectors, torch.einsum("nac,ab->nbc", states.vectors, turn), rtol=0, atol=1e-10)


@pytest.mark.parametrize("layer", LAYERS)
def test_order_of_atoms_and_edges_does_not_matter(layer):
    model, atoms = drawn(EnergyModel(replace(CONFIG, layer=layer))), crystal()
    generator = torch.Generator().manual_seed(2)
    order = torch.randperm(len(atoms.elements), generator=generator)
    edges = torch.randperm(len(atoms.senders), generator=generator)
    place = order.argsort()
    shuffled = Atoms(
        atoms.positions[order],
        atoms.elements[order],
        place[atoms.senders][edges],
        place[atoms.receivers][edges],
        atoms.shifts[edges],
        atoms.cells[edges],
    )
    torch.testing.assert_close(
        model(shuffled, shuffled.edge_vectors()), model(atoms, atoms.edge_vectors())[order], rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_structures_side_by_side_do_not_feel_each_other(config):
    model, first, second = drawn(EnergyModel(config)), crystal(), molecule()
    together, forces = energy_and_forces(model, first + second + first)
    (one, force_one), (other, force_other) = (energy_and_forces(model, atoms) for atoms in (first, second))
    torch.testing.assert_close(together, 2 * one + other, rtol=0, atol=1e-10)
    torch.testing.assert_close(forces, torch.cat([force_one, force_other, force_one]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_a_supercell_has_twice_the_energy(config):
    model = drawn(EnergyModel(config))
    cell = 3.1 * torch.eye(3, dtype=torch.float64)
    positions = torch.tensor([[0, 0, 0], [1.4, 1.7, 1.5]], dtype=torch.float64)
    single = connect(positions, torch.tensor([0, 1]), cell, CUTOFF)
    doubled = cell.clone()
    doubled[0] *= 2
    double = connect(torch.cat([positions, positions + cell[0]]), torch.tensor([0, 1, 0, 1]), doubled, CUTOFF)
    torch.testing.assert_close(
        model(double, double.edge_vectors()).sum(),
        2 * model(single, single.edge_vectors()).sum(),
        rtol=0,
        atol=1e-10,
    )


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_forces_are_those_of_finite_differences(config):
    model, atoms = drawn(EnergyModel(config)), crystal()
    _, forces = energy_and_forces(model, atoms)
    for atom, axis in ((0, 0), (3, 1), (5, 2)):
        energies = []
        for step in (1e-4, -1e-4):
            x = atoms.positions.clone()
            x[atom, axis] += step
            energies.append(model(atoms, atoms.edge_vectors(x)).sum().item())
        assert forces[atom, axis].item() == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_energy_and_two_derivatives_are_continuous_at_the_cutoff(config):
    model, rest = drawn(EnergyModel(config)), molecule(4)
    direction = torch.nn.functional.normalize(torch.tensor([[-1.0, -0.6, -0.3]], dtype=torch.float64))

    def dragged(distance: float) -> tuple[float, torch.Tensor]:
        positions = torch.cat([rest.positions, rest.positions[:1] + distance * direction])
        elements = torch.cat([rest.elements, rest.elements[:1]])
        energy, forces = energy_and_forces(
            model, connect(positions, elements, torch.zeros(3, 3, dtype=torch.float64), CUTOFF)
        )
        return energy.item(), forces

    step = 1e-3
    places = [CUTOFF + step * (i - 3) for i in range(7)]  # the list of edges changes at the fourth
    energies, forces = zip(*map(dragged, places), strict=True)
    assert dragged(CUTOFF - 0.5)[0] != pytest.approx(dragged(CUTOFF + 0.1)[0], abs=1e-4)
    assert dragged(CUTOFF - 1e-6)[0] == pytest.approx(dragged(CUTOFF + 1e-6)[0], abs=1e-10)
    torch.testing.assert_close(dragged(CUTOFF - 1e-6)[1], dragged(CUTOFF + 1e-6)[1], rtol=0, atol=1e-8)
    # A jump of the slope would show as one over the step, a thousand.
    assert (torch.tensor(energies).diff().diff() / step**2).abs().max() < 1.0
    # The slope of forces goes to zero without a jump: it changes across the cutoff no faster than before.
    changes = (torch.stack(forces).diff(dim=0) / step).diff(dim=0).abs().amax(dim=(1, 2))
    assert 0 < changes[2] < 1.1 * changes[:2].max()
    assert changes[3:].max() < 1e-9


@pytest.mark.parametrize("layer", FORCE_LAYERS)
def test_a_list_of_edges_with_a_margin_gives_the_same(layer):
    model, atoms, wide = drawn(EnergyModel(replace(CONFIG, layer=layer))), crystal(), crystal(CUTOFF + 1)
    assert len(wide.senders) > len(atoms.senders)
    for found, expected in zip(energy_and_forces(model, wide), energy_and_forces(model, atoms), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_isolated_atoms_and_no_edges_at_all(config):
    model = drawn(EnergyModel(config))
    lonely = connect(torch.zeros(1, 3).double(), torch.tensor([1]), torch.zeros(3, 3).double(), CUTOFF)
    assert len(lonely.senders) == 0
    for atoms in (lonely, crystal() + lonely, lonely + lonely):
        energy, forces = energy_and_forces(model, atoms, create_graph=True)
        (energy + forces.square().sum()).backward()
        assert torch.isfinite(energy)
        assert not forces[-1].any()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("layer", FORCE_LAYERS)
def test_no_atoms_have_no_energy(layer):
    nothing = connect(torch.zeros(0, 3).double(), torch.zeros(0, dtype=torch.long), torch.zeros(3, 3).double(), CUTOFF)
    energy, forces = energy_and_forces(drawn(EnergyModel(replace(CONFIG, layer=layer))), nothing, create_graph=True)
    assert energy.item() == 0
    assert forces.shape == (0, 3)


def test_gradients_are_finite_where_symmetry_makes_vectors_vanish():
    model = drawn(EnergyModel(CONFIG))
    perfect = connect(torch.zeros(1, 3).double(), torch.tensor([0]), 2.4 * torch.eye(3).double(), CUTOFF)
    energy, forces = energy_and_forces(model, perfect, create_graph=True)
    (energy + (forces - 1).square().sum()).backward()
    torch.testing.assert_close(forces, torch.zeros_like(forces), rtol=0, atol=1e-12)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("layer", FORCE_LAYERS)
def test_every_parameter_matters_to_forces_and_energies(layer):
    model = drawn(EnergyModel(replace(CONFIG, layer=layer)))
    energy, forces = energy_and_forces(model, crystal(), create_graph=True)
    (energy + forces.square().sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradients_of_a_force_loss_are_those_of_finite_differences():
    model, atoms = drawn(EnergyModel(CONFIG)), crystal()

    @torch.enable_grad()
    def loss() -> torch.Tensor:
        return energy_and_forces(model, atoms, create_graph=True)[1].square().sum()

    loss().backward()
    for parameter in model.parameters():
        with torch.no_grad():
            flat, gradient = parameter.view(-1), parameter.grad.view(-1)
            place = int(gradient.abs().argmax())
            flat[place] += 1e-5
            above = loss().item()
            flat[place] -= 2e-5
            below = loss().item()
            flat[place] += 1e-5
        assert gradient[place].item() == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("layer", LAYERS)
def test_starts_alike_whether_built_whole_or_under_the_meta_device(layer):
    def build_model() -> GNN:
        return GNN(replace(CONFIG, layer=layer), 3, avg_num_neighbors=12.0)

    model = build_model()
    initialize(model, 5)
    world = World(0, 1, torch.device("cpu"))
    config = ParallelConfig()
    other = parallelize(build_model, Mesh(world, config.degrees(1)), config, seed=5).module
    assert model.state_dict().keys() == other.state_dict().keys()
    for name, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    for name, parameter in other.named_parameters():
        if parameter.ndim == 2:
            assert parameter.std() > 0.01, name
    GNN.plan.styles(model)


@pytest.mark.parametrize("layer", ["pna", "gps"])
def test_property_layers_keep_structures_apart(layer):
    model, first, second = drawn(EnergyModel(replace(CONFIG, layer=layer))), crystal(), molecule()
    both = first + second
    graph_index = torch.tensor([0] * len(first.elements) + [1] * len(second.elements))
    together = model(both, both.edge_vectors(), graph_index)
    alone = torch.cat([model(atoms, atoms.edge_vectors()) for atoms in (first, second)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    assert not model.encoder.config.supports_forces


@pytest.mark.parametrize("layer", ["pna", "gps"])
def test_property_layers_have_gradients_beside_isolated_atoms(layer):
    model = drawn(EnergyModel(replace(CONFIG, layer=layer)))
    lonely = connect(torch.zeros(1, 3).double(), torch.tensor([1]), torch.zeros(3, 3).double(), CUTOFF)
    for atoms in (crystal() + lonely, molecule(2), lonely):
        model.zero_grad()
        energies = model(atoms, atoms.edge_vectors(), torch.zeros(len(atoms.elements), dtype=torch.long))
        energies.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_states_have_about_unit_size_at_the_start():
    model = GNN(replace(CONFIG, num_channels=64, num_layers=3), 3, avg_num_neighbors=len(crystal().senders) / 6)
    initialize(model, 0)
    atoms = crystal()
    sizes = []
    for layer in model.layers:
        layer.register_forward_hook(lambda _, __, states: sizes.append(states.scalars.std().item()))
    model(atoms.elements, atoms.edge_vectors().float(), atoms.senders, atoms.receivers, 6)
    assert all(0.5 < size < 5 for size in sizes), sizes


@pytest.mark.parametrize("size", ["tiny", "small", "medium", "large", "100m", "1b"])
def test_sizes_are_what_their_files_say(size):
    from omegaconf import OmegaConf

    texts = [(CONF / "model" / f"gnn_{name}.yaml").read_text() for name in ("tiny", size)]
    said = re.search(r"# ([\d,]+) parameters and ([\d,]+) for each element", texts[1])
    values = {}
    for text in texts:
        values |= OmegaConf.to_container(OmegaConf.create(text))
    values.pop("defaults", None)
    with torch.device("meta"):
        model = GNN(build(GNNConfig, values, prefix="model"), 10, avg_num_neighbors=40.0)
    counts = [int(number.replace(",", "")) for number in said.groups()]
    assert sum(p.numel() for p in model.parameters()) == counts[0] + 10 * counts[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"layer": "pain"},
            r"model\.layer must be one of painn, tensornet, egnn, schnet, pna, gps, .*did you mean 'painn'",
        ),
        ({"radial": "bessels"}, r"model\.radial must be one of .*did you mean 'bessel'"),
        ({"cutoff": 0.0}, r"model\.cutoff must be above 0, got 0\.0; try model\.cutoff=5"),
        ({"num_layers": 0}, r"model\.num_layers must be at least 1, got 0; try model\.num_layers=3"),
        ({"num_radial": 1}, r"model\.num_radial must be at least 2, got 1; try model\.num_radial=8"),
        (
            {"envelope_exponent": 2},
            r"model\.envelope_exponent must be at least 3, got 2; try .*=5",
        ),
        (
            {"layer": "gps", "num_heads": 3},
            r"model\.num_heads must divide model\.num_channels, got 3 and 8; .*1, 2, 4, 8",
        ),
    ],
)
def test_bad_configuration_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        build(GNNConfig, {**vars(CONFIG), **change}, prefix="model")


def test_vectors_are_refused_of_layers_without_them():
    with pytest.raises(ConfigError, match=r"model\.layer: 'egnn' has no vectors; use painn"):
        GNN(replace(CONFIG, layer="egnn"), 3, avg_num_neighbors=12.0, makes_vectors=True)


@pytest.mark.parametrize("layer", FORCE_LAYERS)
def test_layers_computed_again_give_the_same_gradients_of_a_force_loss(layer):
    def gradients(recompute):
        model, atoms = drawn(EnergyModel(replace(CONFIG, layer=layer, recompute=recompute))), crystal()
        x = atoms.positions.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(atoms, atoms.edge_vectors(x)).sum(), x, create_graph=True)
        slope.square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}

    expected, found = gradients("none"), gradients("full")
    assert expected.keys() == found.keys()
    assert max(value.abs().max() for value in expected.values()) > 1e-5
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)
