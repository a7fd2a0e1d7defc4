"""Fields cut into square patches, and put together again."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sciml.core.errors import ConfigError
from sciml.nn.topology import Odd, Topology


def check_patches(grid_shape: tuple[int, int], patch_size: int) -> None:
    """Refuses a patch size that does not divide the grid.

    Raises:
        ConfigError: naming the sizes that do.
    """
    rows, columns = grid_shape
    if rows % patch_size or columns % patch_size:
        sizes = [str(p) for p in range(1, min(rows, columns) + 1) if rows % p == 0 and columns % p == 0]
        hint = f"sizes that do: {', '.join(sizes)}"
        if sizes == ["1"]:
            hint += "; prepare the data on a grid with more divisors, e.g. 32x64"
        raise ConfigError(
            f"patches of {patch_size}x{patch_size} do not divide the grid of {rows}x{columns}",
            key="model.patch_size",
            hint=hint,
        )


def pad_to_patches(
    fields: Float[Tensor, "batch variable row column"], patch_size: int, topology: Topology, odd: Odd | None = None
) -> Float[Tensor, "batch variable padded_row padded_column"]:
    """Returns fields continued beyond their last row and column until patches divide them.

    Args:
        topology: says what lies there.
        odd: which of the fields turn around there.

    Raises:
        ConfigError: where a patch is larger than the grid.
    """
    rows, columns = fields.shape[-2:]
    if patch_size > min(rows, columns):
        raise ConfigError(
            f"patches of {patch_size}x{patch_size} are larger than the grid of {rows}x{columns}",
            key="model.patch_size",
            hint=f"at most {min(rows, columns)}",
        )
    return topology.pad(fields, (0, -columns % patch_size, 0, -rows % patch_size), odd)


def patchify(
    fields: Float[Tensor, "batch variable row column"], patch_size: int
) -> Float[Tensor, "batch token variable pixel"]:
    """Returns the pixels of every patch and variable; patches row by row, pixels within them too."""
    b, v, rows, columns = fields.shape
    p = patch_size
    cut = fields.reshape(b, v, rows // p, p, columns // p, p)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, (rows // p) * (columns // p), v, p * p)


def unpatchify(
    patches: Float[Tensor, "batch token variable pixel"], grid_shape: tuple[int, int], patch_size: int
) -> Float[Tensor, "batch variable row column"]:
    """Inverts :func:`patchify`; what patches have beyond the grid's last row and column is dropped."""
    rows, columns = grid_shape
    p = patch_size
    b, _, v, _ = patches.shape
    down, across = -(-rows // p), -(-columns // p)
    cut = patches.reshape(b, down, across, v, p, p)
    return cropped(cut.permute(0, 3, 1, 4, 2, 5).reshape(b, v, down * p, across * p), rows, columns)


def cropped(
    fields: Float[Tensor, "batch variable row column"], rows: int, columns: int
) -> Float[Tensor, "batch variable _row _column"]:
    """Drops what fields have beyond some rows and columns.

    The result is no view of a larger one: sharded modules, whose hooks belong to what they return, may return it.
    """
    if fields.shape[-2:] == (rows, columns):
        return fields
    return fields[..., :rows, :columns].contiguous()
