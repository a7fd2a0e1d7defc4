"""Convolutions over the whole grid, by weights of its longest waves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.initialization import Normal, starts_as
from sciml.nn.topology import Topology


class SpectralConv(nn.Module):
    """Mixes channels with weights of their own for each of the longest waves.

    The field is continued to one without edges, so that its waves end nowhere, and cut to its grid again.
    ``weight`` is (in, out, row wave, column wave, real and imaginary part); row waves go both ways.
    """

    def __init__(self, num_channels: int, modes: tuple[int, int]) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.empty(num_channels, num_channels, 2 * modes[0], modes[1], 2))
        starts_as(self, weight=Normal(1.0 / num_channels))

    def forward(
        self, x: Float[Tensor, "batch channel row column"], topology: Topology
    ) -> Float[Tensor, "batch channel row column"]:
        whole = topology.gathered(x.to(self.weight.dtype))
        endless = topology.endless(whole)
        rows, columns = endless.shape[-2:]
        spectrum = torch.fft.rfft2(endless, norm="forward")
        along_rows = min(self.modes[0], rows // 2)
        along_columns = min(self.modes[1], columns // 2 + 1)
        weight = torch.view_as_complex(self.weight)
        mixed = torch.zeros_like(spectrum)
        for kept, weights in (
            (slice(0, along_rows), slice(0, along_rows)),
            (slice(rows - along_rows, rows), slice(2 * self.modes[0] - along_rows, 2 * self.modes[0])),
        ):
            waves = spectrum[..., kept, :along_columns]
            mixed[..., kept, :along_columns] = torch.einsum(
                "birc,iorc->borc", waves, weight[:, :, weights, :along_columns]
            )
        back = torch.fft.irfft2(mixed, s=(rows, columns), norm="forward")
        return topology.own(back[..., : whole.shape[-2], : whole.shape[-1]]).to(x.dtype)
