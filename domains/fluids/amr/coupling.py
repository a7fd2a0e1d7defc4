"""Two-way coupling inside a step: before each block, coarse and fine tokens of the same place hear from one another."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from domains.fluids.amr.config import ForestConfig
from domains.fluids.amr.forest import Forest
from domains.fluids.amr.token_shard import TokenShard
from sciml.models.vit import Block, ViTConfig
from sciml.nn.initialization import zeros
from sciml.nn.position import Rotary
from sciml.nn.staged import Place


class Coupling(nn.Module):
    """Adds to fine tokens a linear of their parent, and to a refined one a linear of its children's mean.

    Both see the tokens as they come, normalized, and start at zero: as the prolongation and the restriction of a
    multigrid cycle, but learned.

    Args:
        embed_dim: channels of a token.
        two_way: whether parents hear from their children.
    """

    def __init__(self, embed_dim: int, two_way: bool) -> None:
        super().__init__()
        self.whole = Place()
        self.down = zeros(nn.Linear(embed_dim, embed_dim))
        self.up = zeros(nn.Linear(embed_dim, embed_dim)) if two_way else None

    def forward(
        self, x: Float[Tensor, "batch token embed"], forest: Forest, share: TokenShard
    ) -> Float[Tensor, "batch token embed"]:
        """Returns the tokens of this rank, with what their parents and children add."""
        whole = self.whole(x)
        values = list(whole.split([level.num_tokens for level in forest.levels], dim=1))
        heard = [torch.zeros_like(value) for value in values]
        for index, level in enumerate(forest.levels[:-1]):
            if not level.refined.shape[1]:
                continue
            places = level.refined[..., None].expand(-1, -1, x.shape[-1])
            count = forest.geometry.num_children(index)
            message = self.down(_normalized(values[index].gather(1, places)))
            heard[index + 1] = heard[index + 1] + message.repeat_interleave(count, dim=1).to(x.dtype)
            if self.up is not None:
                means = values[index + 1].unflatten(1, (-1, count)).mean(dim=2)
                message = self.up(_normalized(means)).to(x.dtype)
                if level.refines is not None:
                    message = message * level.refines[..., None]
                heard[index] = heard[index].scatter_add(1, places, message)
        return x + share.of(torch.cat(heard, dim=1))


class CoupledBlock(Block):
    """Couples parents and children before a block of the shared ViT."""

    def __init__(self, config: ViTConfig, drop_path: float = 0.0) -> None:
        super().__init__(config, drop_path)
        assert isinstance(config, ForestConfig)
        is_coupled = config.coupling != "none" and config.ratios
        self.coupling = Coupling(config.embed_dim, config.coupling == "two_way") if is_coupled else None

    def forward(  # type: ignore[override]
        self,
        x: Float[Tensor, "batch token embed"],
        condition: Float[Tensor, "batch condition"] | None,
        rotary: Rotary | None,
        mask: Bool[Tensor, "batch token"] | None,
        forest: Forest,
        share: TokenShard,
    ) -> Float[Tensor, "batch token embed"]:
        """Returns the block's tokens, of this rank."""
        if self.coupling is not None:
            x = self.coupling(x, forest, share)
        return super().forward(x, condition, rotary, mask)


def _normalized(x: Float[Tensor, "batch token embed"]) -> Float[Tensor, "batch token embed"]:
    return F.layer_norm(x, x.shape[-1:])
