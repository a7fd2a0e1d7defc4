"""Models from fields to fields of the same grid, whatever the domain: what they are given, and what they share.

A domain says what the fields are, where the cells lie and what lies beyond the edges; a model of this kind knows
neither weather nor flows, so that one U-Net serves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError, nearest
from sciml.core.types import AtLeastOne
from sciml.nn.conditioning import ConditionEmbedding, ScalarEncoding
from sciml.nn.convolution import VariableHead, VariableStem
from sciml.nn.patch import cropped
from sciml.nn.position import fourier_features
from sciml.nn.staged import ForwardPass
from sciml.nn.topology import Odd, Topology


class FieldKeys(Protocol):
    """Describes the keys of a configuration that :class:`FieldModel` reads; see :class:`FieldModelConfig`."""

    @property
    def square(self) -> int: ...

    @property
    def condition_dim(self) -> int: ...

    @property
    def condition_on(self) -> tuple[str, ...]: ...

    @property
    def position_features(self) -> tuple[str, ...]: ...

    @property
    def position_harmonics(self) -> int: ...


@dataclass(frozen=True)
class FieldModelConfig:
    """Holds the keys that all models from fields to fields have.

    Attributes:
        kind: name of the model family, by which a domain knows it.
        square: cells along a side of the squares that are the model's finest features; 1 keeps every cell.
        condition_dim: length of the vector that modulates the layers.
        condition_on: scalars that it is made of; their names belong to the domain.
        position_features: coordinates whose Fourier features are added to the first features.
        position_harmonics: number of harmonics of each of them.
    """

    kind: str = ""
    square: AtLeastOne = 1
    condition_dim: AtLeastOne = 64
    condition_on: tuple[str, ...] = ("lead_time",)
    position_features: tuple[str, ...] = ()
    position_harmonics: AtLeastOne = 4


@dataclass(frozen=True)
class Variables:
    """Names what a model may be given and asked for.

    Attributes:
        read: all variables that may ever come.
        predicted: all variables that may ever be asked for.
        encodings: features of the scalars that the domain has.
        axes: the coordinates that the domain has.
        noise_dim: length of the noise that makes a member of an ensemble; 0 for a deterministic model.
    """

    read: tuple[str, ...]
    predicted: tuple[str, ...]
    encodings: Mapping[str, ScalarEncoding]
    axes: tuple[str, ...]
    noise_dim: int = 0

    def check(self, config: FieldKeys) -> None:
        """Refuses coordinates and scalars in a configuration that the domain does not have.

        Raises:
            ConfigError: naming the key and the nearest known name.
        """
        for key, names, known in (
            ("position_features", config.position_features, self.axes),
            ("condition_on", config.condition_on, tuple(self.encodings)),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(f"the data have no {name!r}", key=f"model.{key}", hint=nearest(name, known))


@dataclass(frozen=True)
class FieldInputs:
    """Holds what a model is applied to.

    Attributes:
        fields: normalized.
        names: the variables of ``fields``; None for all that the model reads.
        outputs: the variables wanted; None for all that the model predicts.
        scalars: of each sample, in the units of their encodings.
        angles: the coordinates of each cell in radians, of all samples or of each.
        topology: what lies beyond the edges.
        odd: which of the fields turn around there.
        noise: that makes each sample a member of an ensemble; None for the deterministic model.
    """

    fields: Float[Tensor, "batch variable row column"]
    names: tuple[str, ...] | None
    outputs: tuple[str, ...] | None
    scalars: Mapping[str, Float[Tensor, "batch"]]
    angles: Mapping[str, Float[Tensor, "*batch row column"]]
    topology: Topology
    odd: Odd | None = None
    noise: Float[Tensor, "batch noise"] | None = None


def mean_angle(angles: Float[Tensor, "*batch row column"], size: int) -> Float[Tensor, "*batch _row _column"]:
    """Returns the angles in the middle of squares; those that lie across a full turn are taken care of."""
    cut = angles.double().unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    return torch.atan2(cut.sin().mean((-3, -1)), cut.cos().mean((-3, -1)))


class FieldModel(nn.Module):
    """Maps fields to fields by features of small squares of cells: a stem, a body, and a head that starts at zero.

    Args:
        config: sizes and options.
        variables: names of what is read and predicted.
        num_features: features of a square, from the stem and for the head.
    """

    def __init__(self, config: FieldKeys, variables: Variables, num_features: int) -> None:
        super().__init__()
        variables.check(config)
        self.config: Any = config
        self.encodings = {name: variables.encodings[name] for name in config.condition_on}
        sizes = [encoding.num_features for encoding in self.encodings.values()]
        self.condition = ConditionEmbedding(sum(sizes), config.condition_dim, variables.noise_dim) if sizes else None
        self.stem = VariableStem(variables.read, config.square, num_features)
        num_angles = 2 * len(config.position_features) * config.position_harmonics
        self.position = nn.Linear(num_angles, num_features, bias=False) if num_angles else None
        self.head = VariableHead(variables.predicted, config.square, num_features)

    def forward(self, inputs: FieldInputs) -> Float[Tensor, "batch output row column"]:
        """Returns the predicted fields, float32 (or the weights' precision where that is higher)."""
        return self.forward_pass(inputs).run(self.blocks)

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """Returns the blocks between which the model can be cut; a model without tokens has none."""
        return ()

    def forward_pass(self, inputs: FieldInputs) -> ForwardPass:
        """Returns the way from fields to fields, in parts."""

        def embed() -> tuple[Float[Tensor, "batch feature _row _column"]]:
            condition = self.embed_condition(inputs)
            return (self.body(self.embed_fields(inputs), condition, inputs.topology),)

        def head(features: Float[Tensor, "batch feature _row _column"]) -> Float[Tensor, "batch output row column"]:
            return self.decode(features, inputs)

        return ForwardPass(embed, head)

    def body(
        self,
        features: Float[Tensor, "batch feature _row _column"],
        condition: Float[Tensor, "batch condition"] | None,
        topology: Topology,
    ) -> Float[Tensor, "batch feature _row _column"]:
        """Maps features to features; each kind of model has its own."""
        raise TypeError(f"{type(self).__name__} does not say how it gets from features to features")

    @property
    def multiple(self) -> int:
        """Returns what must divide the rows and columns of a grid; other grids are continued beyond their ends."""
        return self.config.square

    def embed_condition(self, inputs: FieldInputs) -> Float[Tensor, "batch condition"] | None:
        """Returns the vector that modulates the layers, or None where the model is not conditioned."""
        if self.condition is None:
            return None
        features = torch.cat([encode(inputs.scalars[name]) for name, encode in self.encodings.items()], dim=-1)
        return self.condition(features.to(self.condition.first.weight.dtype), inputs.noise)

    def embed_fields(
        self, inputs: FieldInputs, topology: Topology | None = None
    ) -> Float[Tensor, "batch feature _row _column"]:
        """Returns the stem's features of all squares, with those of their positions.

        Args:
            topology: by which a rank works on its own rows; None for all rows.
        """
        topology = topology or inputs.topology
        rows, columns = (-count % self.multiple for count in inputs.fields.shape[-2:])
        fields = topology.scattered(inputs.topology.pad(inputs.fields, (0, columns, 0, rows), inputs.odd))
        features = self.stem(fields, inputs.names, topology, inputs.odd)
        if self.position is None:
            return features
        angles = {name: topology.own(angle) for name, angle in self.square_angles(inputs, self.config.square).items()}
        waves = fourier_features(angles, self.config.position_features, self.config.position_harmonics)
        return features + self.position(waves.to(self.position.weight.dtype)).movedim(-1, -3)

    def square_angles(self, inputs: FieldInputs, size: int) -> dict[str, Float[Tensor, "*batch _row _column"]]:
        """Returns the coordinates of the centers of squares of cells in radians, in float64."""
        rows, columns = (-count % self.multiple for count in inputs.fields.shape[-2:])
        angles = {}
        for name, angle in inputs.angles.items():
            whole = F.pad(angle.unsqueeze(0), (0, columns, 0, rows), mode="replicate").squeeze(0)
            angles[name] = mean_angle(whole, size)
        return angles

    def decode(
        self,
        features: Float[Tensor, "batch feature _row _column"],
        inputs: FieldInputs,
        topology: Topology | None = None,
    ) -> Float[Tensor, "batch output row column"]:
        """Returns the fields of the wanted variables; see :meth:`embed_fields`."""
        topology = topology or inputs.topology
        rows, columns = inputs.fields.shape[-2:]
        return cropped(topology.complete(self.head(features, inputs.outputs, topology)), rows, columns)


def widths_of(widths: Sequence[int], key: str) -> tuple[int, ...]:
    """Returns the channels of the levels, finest first.

    Raises:
        ConfigError: where there is none, or one is below 1.
    """
    if not widths or min(widths) < 1:
        raise ConfigError(
            f"must be widths of at least 1, finest level first, got {list(widths)}", key=key, hint="[64, 128]"
        )
    return tuple(widths)
