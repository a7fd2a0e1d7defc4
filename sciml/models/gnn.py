"""The graph network that all atomic domains share: elements and edges in, states of atoms out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, get_args

from annotated_types import Ge
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciml.core.config import divides
from sciml.core.errors import ConfigError
from sciml.core.types import AtLeastOne, Positive
from sciml.distributed.axes import Role
from sciml.nn.channels import Channels
from sciml.nn.egnn import EGNNLayer
from sciml.nn.message import EdgeGeometry, MessageGeometry, NodeStates, PairGeometry
from sciml.nn.painn import PaiNNLayer
from sciml.nn.property_layers import GPSLayer, PNALayer
from sciml.nn.radial import RadialBasis, RadialKind
from sciml.nn.recompute import recompute
from sciml.nn.schnet import SchNetLayer
from sciml.nn.tensornet import TensorNetLayer
from sciml.parallel.plan import CopyToRegion, GatherReplicated, Scatter, ShardingPlan, Style

ForceLayer = Literal["painn", "tensornet", "egnn", "schnet"]
Layer = Literal[ForceLayer, "pna", "gps"]
Exchange = Callable[[NodeStates], NodeStates]
Repulsion = Literal["auto", "zbl", "none"]
FORCE_LAYERS: tuple[ForceLayer, ...] = get_args(ForceLayer)
LAYERS: tuple[Layer, ...] = get_args(Layer)


@dataclass(frozen=True)
class GNNConfig:
    """Configures a graph network on atoms.

    Attributes:
        kind: name of the model family, by which a domain knows it.
        layer: ``painn`` (scalars and vectors), ``tensornet`` (and matrices), ``egnn``, ``schnet``; or, for properties
            without forces, ``pna`` or ``gps`` of torch_geometric.
        num_channels: channels of an atom's state.
        num_layers: how often atoms hear from their neighbors.
        cutoff: how far neighbors may be, A.
        radial: ``bessel`` or ``gaussian`` functions of the distance.
        num_radial: how many of them; one cannot tell distances apart.
        envelope_exponent: lowest power of the polynomial that ends messages at the cutoff; the higher, the later.
            Below 3 messages would bend at distance 0.
        repulsion: what atoms feel beside the network: ``zbl``, the screened repulsion of their nuclei, or ``none``, as
            in models whose file says nothing of it. ``auto`` is ``zbl``, unless a run starts from the weights of a
            model that has none.
        num_heads: attention heads of ``gps``.
        correlation: how many of an atom's matrices ``tensornet`` multiplies with one another, 2 or 3; each is a sum
            over neighbors, so more tell more of their angles.
        recompute: ``none``, or ``full``: what happens within a layer is computed again in the backward pass, so that
            only states of atoms between layers are kept.
    """

    WIDTHS: ClassVar[tuple[str, ...]] = ("num_channels",)
    practical: ClassVar[tuple[str, ...]] = ("recompute",)
    kind: str = "gnn"
    layer: Layer = "painn"
    num_channels: AtLeastOne = 64
    num_layers: AtLeastOne = 3
    cutoff: Positive[float] = 5.0
    radial: RadialKind = "bessel"
    num_radial: Annotated[int, Ge(2)] = 8
    envelope_exponent: Annotated[int, Ge(3)] = 5
    num_heads: AtLeastOne = 4
    correlation: Literal[2, 3] = 2
    repulsion: Repulsion = "none"
    recompute: Literal["none", "full"] = "none"

    def __post_init__(self) -> None:
        if self.layer == "gps":
            divides(self.num_heads, self.num_channels, key="model.num_heads", of="model.num_channels")

    @property
    def supports_forces(self) -> bool:
        """Says whether energies are smooth enough in the positions to have forces."""
        return self.layer in FORCE_LAYERS


class GNN(nn.Module):
    """Passes messages between atoms, layer by layer.

    States of atoms are cut by channel over ``tp``; each edge's messages are computed from start to end by every rank
    for its own channels, and only states of atoms cross ranks.

    Args:
        config: the network.
        num_elements: how many elements there are to tell apart.
        avg_num_neighbors: edges for an atom in the training data.
        makes_vectors: whether vectors are wanted in the end (``painn`` only); without, the last layer has no part
            that would never be trained.

    Raises:
        ConfigError: where vectors are wanted of a layer that has none.
    """

    plan: ClassVar[ShardingPlan] = ShardingPlan(
        {
            "elements": Style.REPLICATE,
            "norm": Style.REPLICATE,
            "layers.*.norm": Style.REPLICATE,
            "layers.*.*.norm": Style.REPLICATE,
            # PaiNN
            "layers.*.message.hidden": Style.REPLICATE,
            "layers.*.message.gates.*": Style.COLUMN,
            "layers.*.message.filters.*": Style.COLUMN,
            "layers.*.update.projections.*": Style.COLUMN,
            "layers.*.update.from_scalars": Style.REPLICATE,
            "layers.*.update.from_norms": Style.ROW,
            "layers.*.update.gates.*": Style.COLUMN,
            # TensorNet
            "layers.*.update.left.*": Style.COLUMN,
            "layers.*.update.right.*": Style.COLUMN,
            "layers.*.update.from_vectors": Style.ROW,
            "layers.*.update.from_tensors": Style.ROW,
            # SchNet (whose radial linear every rank computes, each for some of the channels behind it), EGNN
            "layers.*.sent.*": Style.COLUMN,
            "layers.*.filter_in": Style.REPLICATE_PARTIAL_GRAD,
            "layers.*.filter_out": Style.COLUMN,
            "layers.*.ends.*": Style.COLUMN,
            "layers.*.radial": Style.COLUMN,
            "layers.*.own": Style.REPLICATE,
            "layers.*.received": Style.ROW,
            "layers.*.out.*": Style.COLUMN,
            # torch_geometric's
            **{"layers.*.conv" + ".*" * depth: Style.REPLICATE for depth in range(5)},
        },
        inputs={
            "geometry": (CopyToRegion(),),
            "own_channels": (Scatter(dim=-1, axes=(Role.MATRIX,)),),
            "layers.*.message.gates": (CopyToRegion(),),
            "layers.*.update.projections": (CopyToRegion(),),
            "layers.*.update.gates": (CopyToRegion(),),
            "layers.*.update.left.*": (CopyToRegion(),),
            "layers.*.update.right.*": (CopyToRegion(),),
            "layers.*.sent": (CopyToRegion(),),
            "layers.*.ends": (CopyToRegion(),),
            "layers.*.out": (CopyToRegion(),),
        },
        outputs={
            "whole": GatherReplicated(dim=-1),
            "layers.*.whole": GatherReplicated(dim=-1),
            "layers.*.message.whole": GatherReplicated(dim=-1),
            "layers.*.update.whole": GatherReplicated(dim=-1),
        },
    )

    def __init__(
        self, config: GNNConfig, num_elements: int, *, avg_num_neighbors: float, makes_vectors: bool = False
    ) -> None:
        super().__init__()
        if makes_vectors and config.layer != "painn":
            raise ConfigError(f"{config.layer!r} has no vectors", key="model.layer", hint="use painn")
        self.config, self.recomputes_layers = config, config.recompute == "full"
        basis = RadialBasis(config.radial, config.num_radial, config.cutoff)
        self.elements = nn.Embedding(num_elements, config.num_channels)
        self.geometry = _geometry(config, basis, avg_num_neighbors)
        self.own_channels = Channels()
        self.layers = nn.ModuleList(
            _layer(config, avg_num_neighbors, is_first=i == 0, makes_vectors=i + 1 < config.num_layers or makes_vectors)
            for i in range(config.num_layers)
        )
        self.whole = Channels()
        self.norm = nn.LayerNorm(config.num_channels)

    def forward(
        self,
        elements: Int[Tensor, "atom"],
        edge_vectors: Float[Tensor, "edge 3"],
        senders: Int[Tensor, "edge"],
        receivers: Int[Tensor, "edge"],
        num_atoms: int,
        graph_index: Int[Tensor, "atom"] | None = None,
        exchange: Exchange | None = None,
    ) -> NodeStates:
        """Returns the states of all atoms of a batch.

        Args:
            elements: places in the table of elements.
            edge_vectors: from receiver to sender, A; not zero.
            senders, receivers: atoms at the ends.
            num_atoms: atoms of the batch, also those without edges.
            graph_index: which graph an atom belongs to; only ``gps`` asks.
            exchange: where ranks share a structure, what brings the states of copies of others' atoms up to date.
        """
        states = NodeStates(self.own_channels(self.elements(elements)))
        neighbors = self.geometry(edge_vectors, senders, receivers, num_atoms, graph_index)
        for number, layer in enumerate(self.layers):
            if exchange is not None and number:
                states = exchange(states)
            mode = "full" if self.recomputes_layers else "none"
            states = NodeStates(*recompute(mode, layer, states, neighbors))
        scalars = self.norm(self.whole(states.scalars))
        return NodeStates(scalars, None if states.vectors is None else self.whole(states.vectors))


def _geometry(config: GNNConfig, basis: RadialBasis, avg_num_neighbors: float) -> MessageGeometry:
    if config.layer in ("painn", "tensornet"):
        return PairGeometry(basis, config.envelope_exponent, avg_num_neighbors, quadratic=config.layer == "tensornet")
    return EdgeGeometry(basis, config.envelope_exponent, avg_num_neighbors)


def _layer(config: GNNConfig, avg_num_neighbors: float, is_first: bool, makes_vectors: bool) -> nn.Module:
    sizes = config.num_channels, config.num_radial
    if config.layer == "painn":
        return PaiNNLayer(*sizes, has_vectors=not is_first, makes_vectors=makes_vectors)
    if config.layer == "tensornet":
        return TensorNetLayer(*sizes, config.correlation, is_first=is_first, makes_tensors=makes_vectors)
    if config.layer == "egnn":
        return EGNNLayer(*sizes)
    if config.layer == "schnet":
        return SchNetLayer(*sizes)
    if config.layer == "pna":
        return PNALayer(*sizes, avg_num_neighbors)
    return GPSLayer(*sizes, config.num_heads)
