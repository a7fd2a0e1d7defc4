"""A published ClimaX as a model of the domain: what its file does not say is said by keys."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from domains.climate.data.regrid import LatLonGrid
from domains.climate.data.schema import ClimateSchema, ClimateStatistics
from domains.climate.data.store_layout import COMPUTED_STATICS
from domains.climate.data.variable import Role
from domains.climate.data.variables import parse_channel
from domains.climate.model.climax import ClimaXConfig, Predicts
from domains.climate.model.climax_weights import KEY, ClimaXWeights
from sciml.core.config import divides
from sciml.core.duration import parse_hours
from sciml.core.errors import ConfigError, nearest
from sciml.core.types import AtLeastOne
from sciml.domain.optional import ImportedModel
from sciml.domain.protocol import FittedData
from sciml.nn.patch import check_patches

HEAD_DIM = 64
"""Channels of a head of the published models."""
LEVELS = (50, 250, 500, 600, 700, 850, 925)
ON_LEVELS = ("geopotential", "u_component_of_wind", "v_component_of_wind", "temperature", "relative_humidity",
             "specific_humidity")  # fmt: skip
VARIABLES: tuple[str, ...] = (
    "land_sea_mask", "orography", "lattitude", "2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind",
    *(f"{name}_{level}" for name in ON_LEVELS for level in LEVELS),
)  # fmt: skip
"""The variables of the published models in their order and spelling."""


@dataclass(frozen=True)
class ClimaXImportConfig:
    """Says what a file of ClimaX's weights does not; the defaults are those of the published models.

    Attributes:
        climax: the file: ``.ckpt``, ``.pt``, ``.pth`` or ``.safetensors``.
        variables: names of its variables in their order; None takes the 48 of ClimaX.
        channels: those that the run reads and predicts; None takes all that change in time. Others are left out, which
            is what ClimaX does when it is called without them.
        statics: those that the run only reads; None takes all that do not change.
        num_heads: attention heads, which the file does not show; None takes heads of 64 channels.
        grid: longitudes x latitudes; None takes twice as many longitudes as latitudes, as many as there are positions.
        south_first: whether the published model takes its fields from south to north.
        lead_time_unit: what a lead time of 1 stands for.
        predicts: ``state`` or ``increment``, see :class:`ClimaXConfig`.
        mean, std: ``.npz`` files with one number for each variable, in its unit; None takes 0 and 1.
        step: between two times of the data.
    """

    climax: str = ""
    variables: list[str] | None = None
    channels: list[str] | None = None
    statics: list[str] | None = None
    num_heads: AtLeastOne | None = None
    grid: str | None = None
    south_first: bool = True
    lead_time_unit: str = "100h"
    predicts: Predicts = "state"
    mean: str | None = None
    std: str | None = None
    step: str = "6h"

    def __post_init__(self) -> None:
        if not self.climax:
            raise ConfigError("no file is named", key=KEY, hint="e.g. climax=5.625deg.ckpt")
        if parse_hours(self.lead_time_unit, key="lead_time_unit") == 0:
            raise ConfigError("must be longer than 0 h", key="lead_time_unit", hint="try 100h")


def import_climax(config: ClimaXImportConfig) -> ImportedModel:
    """Reads a published ClimaX.

    The published files hold no statistics of increments: they are taken to be those of the variables, so that the
    loss is that of standardized fields, as in ClimaX.

    Raises:
        ConfigError: the file cannot be read or is none of ClimaX, or a key does not fit it.
    """
    weights = ClimaXWeights.read(Path(config.climax))
    published = config.variables or list(VARIABLES)
    if len(published) != weights.num_variables:
        raise ConfigError(
            f"{config.climax} has {weights.num_variables} variables, {len(published)} are named",
            key="variables",
            hint="name all of them in the order that the model was trained with",
        )
    names = [short_name(name) for name in published]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} is named twice", key="variables")
    fixed = [name for name in names if is_static(name)]
    statics = chosen(config.statics, fixed, "statics")
    channels = chosen(config.channels, [name for name in names if name not in fixed], "channels")
    if not channels:
        raise ConfigError("no variable that changes in time is left", key="channels")
    num_heads = config.num_heads or max(weights.embed_dim // HEAD_DIM, 1)
    if config.num_heads is None and num_heads * HEAD_DIM != weights.embed_dim:
        raise ConfigError(
            f"tokens of {weights.embed_dim} channels do not make heads of {HEAD_DIM}, those of the published models",
            key="num_heads",
            hint="name their number, e.g. num_heads=4",
        )
    divides(num_heads, weights.embed_dim, key="num_heads", of="the file's embed_dim")
    grid = grid_of(weights, config.grid)
    model = ClimaXConfig(
        embed_dim=weights.embed_dim,
        depth=weights.depth,
        num_heads=num_heads,
        mlp_ratio=weights.mlp_dim / weights.embed_dim,
        patch_size=weights.patch_size,
        head_depth=weights.head_depth,
        predicts=config.predicts,
    )
    mean, std = (
        torch.zeros(len(channels)) if config.mean is None else read_numbers(config.mean, channels, published, "mean"),
        torch.ones(len(channels)) if config.std is None else read_numbers(config.std, channels, published, "std"),
    )
    if not (std > 0).all():
        raise ConfigError(f"a standard deviation in {config.std} is not above 0", key="std")
    schema = ClimateSchema(
        tuple(channels),
        tuple(statics),
        tuple(map(float, grid.latitude)),
        tuple(map(float, grid.longitude)),
        parse_hours(config.step, key="step"),
    )
    statistics = ClimateStatistics(
        mean, std, torch.tensor([schema.step_hours]), std.clone()[None], torch.zeros(len(statics), *grid.shape)
    )
    converted = weights.converted(
        names,
        channels,
        statics,
        grid.shape,
        num_heads=num_heads,
        south_first=config.south_first,
        lead_time_unit_h=parse_hours(config.lead_time_unit, key="lead_time_unit"),
    )
    return ImportedModel(asdict(model), FittedData(schema, statistics), converted)


def short_name(published: str) -> str:
    """Returns our name of a variable as ClimaX, or anyone, spells it.

    Raises:
        ConfigError: an unknown variable.
    """
    if published in ("lattitude", *COMPUTED_STATICS):  # ClimaX's own spelling
        return "latitude"
    return parse_channel(published, key="variables").name


def is_static(name: str) -> bool:
    """Says whether a variable does not change in time."""
    return name in COMPUTED_STATICS or parse_channel(name).variable.role is Role.STATIC


def chosen(wanted: Sequence[str] | None, known: Sequence[str], key: str) -> list[str]:
    """Returns the wanted ones of some variables by our names, in the order wanted; all by default.

    Raises:
        ConfigError: one that is not among them, or is named twice.
    """
    names = list(known) if wanted is None else [short_name(name) for name in wanted]
    for name in names:
        if name not in known:
            raise ConfigError(f"the file has no {name!r} for them", key=key, hint=nearest(name, known))
        if names.count(name) > 1:
            raise ConfigError(f"{name} is named twice", key=key)
    return names


def grid_of(weights: ClimaXWeights, text: str | None) -> LatLonGrid:
    """Returns the grid of as many patches as positions were learned.

    Raises:
        ConfigError: there is none, or the one of the text has another number.
    """
    cells = weights.num_tokens * weights.patch_size**2
    rows = math.isqrt(cells // 2)
    if text is None and 2 * rows * rows != cells:
        raise ConfigError(
            f"{weights.num_tokens} positions of {weights.patch_size}x{weights.patch_size} do not make a grid of twice "
            "as many longitudes as latitudes",
            key="grid",
            hint="name it, e.g. grid=64x32",
        )
    grid = LatLonGrid.parse(text or f"{2 * rows}x{rows}")
    check_patches(grid.shape, weights.patch_size)
    if math.prod(grid.shape) != cells:
        raise ConfigError(
            f"{grid.text} has {math.prod(grid.shape) // weights.patch_size**2} patches, the file "
            f"{weights.num_tokens} positions",
            key="grid",
        )
    return grid


def read_numbers(file: str, channels: Sequence[str], published: Sequence[str], key: str) -> Float[Tensor, "channel"]:
    """Returns one number for each channel from a ``.npz`` file that names them as the published model does.

    Raises:
        ConfigError: the file cannot be read, or has no finite number for a channel.
    """
    spelled = {short_name(name): name for name in published}
    try:
        with np.load(file, allow_pickle=False) as found:
            values = [np.asarray(found[spelled[name]], dtype=np.float64).reshape(-1) for name in channels]
    except KeyError as error:
        raise ConfigError(f"{file} lacks a variable ({error.args[0]})", key=key) from None
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{file} cannot be read as .npz ({error})", key=key) from None
    for name, value in zip(channels, values, strict=True):
        if value.shape != (1,) or not np.isfinite(value).all():
            raise ConfigError(f"{file} must have one finite number for {name}", key=key)
    return torch.from_numpy(np.concatenate(values)).float()
