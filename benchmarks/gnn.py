"""Training on energies and forces: the shared GNN's layers beside a plain PaiNN on a list of edges.

    python benchmarks/gnn.py                     # 8 x 32 atoms, 3 layers, 64 channels, float32, one thread
    python benchmarks/gnn.py --channels 128

A step is energies, forces, the gradient of a loss of both, and AdamW. The plain PaiNN is the one of the paper, written
as one would write it: messages of every edge, added up by receiver. All models have the same channels, layers and
functions of the distance. Steps of all models alternate, so that they see the same machine; medians are given.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sciml.models.gnn import FORCE_LAYERS, GNN, GNNConfig
from sciml.nn.initialization import initialize
from sciml.nn.radial import RadialBasis, envelope


class PlainPaiNN(nn.Module):
    """Computes PaiNN as in the paper (https://doi.org/10.48550/arXiv.2102.03150), edge by edge."""

    def __init__(self, config: GNNConfig, num_elements: int) -> None:
        super().__init__()
        c, self.config = config.num_channels, config
        self.elements = nn.Embedding(num_elements, c)
        self.basis = RadialBasis(config.radial, config.num_radial, config.cutoff)
        self.filters = nn.ModuleList(nn.Linear(config.num_radial, 3 * c) for _ in range(config.num_layers))
        self.gates = nn.ModuleList(_two_linears(c, 3 * c) for _ in range(config.num_layers))
        self.mixes = nn.ModuleList(nn.Linear(c, 2 * c, bias=False) for _ in range(config.num_layers))
        self.updates = nn.ModuleList(_two_linears(2 * c, 3 * c) for _ in range(config.num_layers))

    def forward(self, elements: Tensor, vectors: Tensor, senders: Tensor, receivers: Tensor, num_atoms: int) -> tuple:
        s = self.elements(elements)
        v = s.new_zeros(num_atoms, 3, s.shape[1])
        r = vectors.norm(dim=-1)
        unit, basis = vectors / r[:, None], self.basis(r)
        ends = envelope(r, self.config.cutoff)[:, None]
        for filter_, gate, mix, update in zip(self.filters, self.gates, self.mixes, self.updates, strict=True):
            parts = (filter_(basis) * ends) * gate(s).index_select(0, senders)
            ds, along, carried = parts.chunk(3, dim=-1)
            dv = along[:, None] * unit[:, :, None] + carried[:, None] * v.index_select(0, senders)
            s = s + torch.zeros_like(s).index_add(0, receivers, ds)
            v = v + torch.zeros_like(v).index_add(0, receivers, dv)
            left, right = mix(v).chunk(2, dim=-1)
            own, product, turn = update(torch.cat([s, (right.square().sum(1) + 1e-8).sqrt()], -1)).chunk(3, dim=-1)
            s, v = s + own + product * (left * right).sum(1), v + turn[:, None] * left
        return s, v


def _two_linears(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs // 3), nn.SiLU(), nn.Linear(outputs // 3, outputs))


def crystals(graphs: int, repeats: int, cutoff: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns positions (atom, 3) of rattled FCC cells, and their edges: senders, receivers, periodic offsets
    (edge, 3).
    """
    torch.manual_seed(0)
    lattice = 3.57  # A
    corners = torch.cartesian_prod(*[torch.arange(float(repeats))] * 3)
    basis = torch.tensor([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    perfect = ((corners[:, None] + basis).reshape(-1, 3)) * lattice
    reach = math.ceil(cutoff / (repeats * lattice))
    offsets = torch.cartesian_prod(*[torch.arange(-float(reach), reach + 1)] * 3) * repeats * lattice
    positions, edges = [], []
    for graph in range(graphs):
        x = perfect + 0.08 * torch.randn(perfect.shape)
        far = x[None, :, None] + offsets[None, None] - x[:, None, None]
        length = far.norm(dim=-1)
        receivers, senders, images = ((length < cutoff) & (length > 1e-3)).nonzero(as_tuple=True)
        edges.append((senders + graph * len(x), receivers + graph * len(x), offsets[images]))
        positions.append(x)
    senders, receivers, shifts = (torch.cat(parts) for parts in zip(*edges, strict=True))
    return torch.cat(positions), senders, receivers, shifts


def make_step(encoder: nn.Module, num_channels: int, batch: tuple[Tensor, ...]) -> Callable[[], None]:
    """Returns a function that trains on one batch."""
    positions, senders, receivers, shifts = batch
    read = nn.Sequential(nn.Linear(num_channels, num_channels), nn.SiLU(), nn.Linear(num_channels, 1))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *read.parameters()], lr=1e-4, fused=True)
    elements = torch.arange(len(positions)) % 5
    targets = 0.1 * torch.randn(positions.shape)

    def step() -> None:
        x = positions.clone().requires_grad_()
        vectors = x.index_select(0, senders) + shifts - x.index_select(0, receivers)
        energy = read(encoder(elements, vectors, senders, receivers, len(x))[0]).sum()
        (gradient,) = torch.autograd.grad(energy, x, create_graph=True)
        loss = F.huber_loss(-gradient, targets) + (energy / len(x)).square()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"graphs": 8, "repeats": 2, "layers": 3, "channels": 64, "radial": 8, "steps": 10, "threads": 1}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cutoff", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    batch = crystals(args.graphs, args.repeats, args.cutoff)
    sizes = {"num_channels": args.channels, "num_layers": args.layers, "cutoff": args.cutoff, "num_radial": args.radial}
    plain = GNNConfig(**sizes)
    models: dict[str, nn.Module] = {"plain PaiNN": PlainPaiNN(plain, 5)}
    for layer in FORCE_LAYERS:
        models[layer] = GNN(GNNConfig(layer=layer, **sizes), 5, avg_num_neighbors=len(batch[1]) / len(batch[0]))
        initialize(models[layer], 0)
    steps = {name: make_step(model, args.channels, batch) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.steps + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if number:  # the first one warms up
                times[name].append(time.process_time() - start)
    print(
        f"{args.graphs} x {len(batch[0]) // args.graphs} atoms, {len(batch[1])} edges, {args.layers} layers, "
        f"{args.channels} channels, {args.radial} functions, {args.threads} thread(s); times are CPU seconds"
    )
    print(f"{'':16s}{'parameters':>12s}{'ms/step':>12s}{'ratio':>9s}")
    reference = statistics.median(times["plain PaiNN"])
    for name, found in times.items():
        middle = statistics.median(found)
        count = sum(p.numel() for p in models[name].parameters())
        print(f"{name:16s}{count:12d}{1e3 * middle:12.1f}{reference / middle:9.2f}")


if __name__ == "__main__":
    main()
