"""Variables to tokens: each variable embedded, one query attending over them, folded into two matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.nn.initialization import Normal, starts_as
from sciml.nn.variables import variable_index


class VariableEmbedding(nn.Module):
    """Holds, for every variable, the token of each pixel of a patch and a token of its own.

    ``weight[v]`` has a row per pixel (a p x p convolution) and a last row that is added whatever the pixels
    are (the convolution's bias and the variable's embedding).
    """

    def __init__(self, num_variables: int, num_pixels: int, embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_variables, num_pixels + 1, embed_dim))
        # The mean over V variables of unit-variance pixels then has unit variance.
        starts_as(self, weight=Normal(math.sqrt(num_variables / num_pixels)))

    def forward(self, index: Sequence[int] | None = None) -> Float[Tensor, "variable basis embed"]:
        """Returns the rows of the chosen variables, or of all."""
        if index is None:
            return self.weight
        return self.weight[torch.tensor(index, device=self.weight.device)]


class VariableTokenizer(nn.Module):
    """Turns patches of any subset of variables into one token each.

    In its plain form (ClimaX) each variable is embedded by a p x p convolution, its own embedding is added, and
    one learned query attends over the variables of a patch. The query is the same everywhere and tokens are
    linear in the pixels, so with basis tokens e[v, k] (one per pixel and a constant one) and pixels x[v, k]
    (the last one 1):

        score[v, h] = sum_k x[v, k] (e[v, k] . r_h),        r_h = Wk_h^T q_h / sqrt(head_dim)
        out_h       = sum_v softmax_v(score)[v, h] sum_k x[v, k] (Wv_h e[v, k])

    which is exact, and the (batch, variable, token, channel) tensor is never built. ``score`` learns r_h, which
    is all that query and keys amount to; the keys' bias drops out of the softmax, the values' bias joins
    that of ``out``. All of it is cut by heads.

    Source of the plain form: Nguyen et al. (2023), https://doi.org/10.48550/arXiv.2301.10343.

    Args:
        variables: names of all variables that may ever come.
        patch_size: rows and columns of a patch.
        embed_dim: channels of a token.
        num_heads: heads of the attention over variables.
    """

    def __init__(self, variables: Sequence[str], patch_size: int, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.variables = tuple(variables)
        self.head_dim = embed_dim // num_heads
        self.embedding = VariableEmbedding(len(self.variables), patch_size**2, embed_dim)
        self.score = starts_as(nn.Linear(embed_dim, num_heads, bias=False), weight=Normal(0.02 / math.sqrt(embed_dim)))
        self.value = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(
        self, patches: Float[Tensor, "batch token variable pixel"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "batch own_token embed"]:
        """Returns one token for each patch, or for this rank's.

        Args:
            patches: standardized pixels.
            names: the variables of ``patches`` in their order; by default all, in the tokenizer's own order.

        Raises:
            ConfigError: where a name is not among the tokenizer's variables.
        """
        batch, token = patches.shape[:2]
        basis = self.embedding(variable_index(self.variables, names))
        x = torch.cat([patches, patches.new_ones(*patches.shape[:3], 1)], dim=-1).flatten(0, 1)

        per_pixel = self.score(basis)  # variable, basis, head
        scores = torch.bmm(x.transpose(0, 1), per_pixel.to(x.dtype))  # variable, batch * token, head
        weights = scores.permute(2, 1, 0).softmax(dim=-1)  # head, batch * token, variable

        weighted = (x * weights[..., None].to(x.dtype)).flatten(2)  # head, batch * token, variable * basis
        values = self.value(basis).unflatten(-1, (-1, self.head_dim)).flatten(0, 1).transpose(0, 1)
        mixed = torch.bmm(weighted, values.to(x.dtype))  # head, batch * token, channel of the head
        return self.out(mixed.transpose(0, 1).reshape(batch, token, -1))


class PlainTokenizer(nn.Module):
    """Computes what :class:`VariableTokenizer` does without folding: the reference of tests and benchmarks.

    Args: as there.
    """

    def __init__(self, variables: Sequence[str], patch_size: int, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.variables = tuple(variables)
        count, self.patch_size = len(self.variables), patch_size
        self.convolutions = nn.ModuleList(nn.Conv2d(1, embed_dim, patch_size, patch_size) for _ in range(count))
        self.variable_embedding = nn.Parameter(torch.randn(count, embed_dim))
        self.query = nn.Parameter(torch.randn(embed_dim))
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def forward(
        self, fields: Float[Tensor, "batch variable row column"], names: Sequence[str] | None = None
    ) -> Float[Tensor, "batch token embed"]:
        """Returns one token for each patch of the fields."""
        index = variable_index(self.variables, names) or range(len(self.variables))
        tokens = torch.stack(
            [
                self.convolutions[v](fields[:, i : i + 1]).flatten(2).transpose(1, 2) + self.variable_embedding[v]
                for i, v in enumerate(index)
            ],
            dim=2,
        )
        batch, token = tokens.shape[:2]
        stacked = tokens.flatten(0, 1)
        mixed, _ = self.attention(self.query.expand(len(stacked), 1, -1), stacked, stacked, need_weights=False)
        return mixed.reshape(batch, token, -1)


def fold(plain: PlainTokenizer) -> dict[str, Tensor]:
    """Returns the parameters of the :class:`VariableTokenizer` that computes the same; differentiable."""
    attention, variables = plain.attention, range(len(plain.variables))
    return folded(
        torch.stack([plain.get_parameter(f"convolutions.{v}.weight").flatten(1) for v in variables]),
        torch.stack([plain.get_parameter(f"convolutions.{v}.bias") for v in variables]) + plain.variable_embedding,
        plain.query,
        attention.in_proj_weight,
        attention.in_proj_bias,
        attention.out_proj.weight,
        attention.out_proj.bias,
        attention.num_heads,
    )


def folded(
    pixels: Float[Tensor, "variable embed pixel"],
    constants: Float[Tensor, "variable embed"],
    query: Float[Tensor, "embed"],
    in_weight: Float[Tensor, "three_embed embed"],
    in_bias: Float[Tensor, "three_embed"],
    out_weight: Float[Tensor, "embed embed"],
    out_bias: Float[Tensor, "embed"],
    num_heads: int,
) -> dict[str, Tensor]:
    """Returns the parameters of the :class:`VariableTokenizer` that computes what ClimaX's do, exactly.

    Args:
        pixels: weights of each variable's convolution.
        constants: its bias and the variable's embedding, added.
        query: the learned query.
        in_weight, in_bias: projections of query, keys and values, stacked, as ``nn.MultiheadAttention`` has them.
        out_weight, out_bias: projection of what was mixed.
        num_heads: heads of the attention over variables.
    """
    dim = len(query)
    w_query, w_key, w_value = in_weight.chunk(3)
    b_query, _, b_value = in_bias.chunk(3)
    projected = (w_query @ query + b_query).view(num_heads, 1, -1)
    return {
        "embedding.weight": torch.cat([pixels.transpose(1, 2), constants[:, None]], dim=1),
        "score.weight": (projected @ w_key.view(num_heads, -1, dim))[:, 0] / math.sqrt(dim // num_heads),
        "value.weight": w_value,
        "out.weight": out_weight,
        "out.bias": out_bias + out_weight @ b_value,
    }
