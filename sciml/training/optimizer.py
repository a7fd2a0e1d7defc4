"""The optimizers, and all that engines, checkpoints and the planner need to know of them; nothing else names one.

torch is imported only where an optimizer is built, so that configurations are checked and trainings planned without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sciml.core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor, nn

    from sciml.parallel.placement import Placement
    from sciml.training.config import OptimConfig

FLOAT32 = 4
KERNEL_DIMS = 4
"""Dims of the kernels of a convolution in a plane, which count as matrices from all inputs of an output to it."""


@dataclass(frozen=True)
class UpdateRule:
    """Says how some parameters are updated, and what that costs for each of their elements.

    Attributes:
        state: names of the tensors, each of the parameter's shape, that are kept between steps.
        moved: bytes that an update reads and writes, kernel by kernel.
        counts_steps: whether the number of steps is kept beside them, as a scalar ``step``.
        iterations: of the Newton-Schulz iteration that makes a matrix orthogonal; 0 where nothing is.
    """

    state: tuple[str, ...]
    moved: int
    counts_steps: bool = False
    iterations: int = 0

    @property
    def state_bytes(self) -> int:
        """Returns the bytes of the tensors that it keeps."""
        return FLOAT32 * len(self.state)

    @property
    def needs_whole_matrices(self) -> bool:
        """Says whether an update needs a matrix as a whole, so that one that is cut must be put together for it."""
        return self.iterations > 0

    def flops(self, rows: int, columns: int) -> int:
        """Returns the floating-point operations of making a whole matrix orthogonal."""
        short, long = sorted((rows, columns))
        return self.iterations * (4 * short**2 * long + 2 * short**3)


@dataclass(frozen=True)
class OptimizerSpec:
    """Describes an optimizer to those who do not care which one it is.

    Attributes:
        matrices: the rule of the trunk's matrices: the 2-D parameters, and the kernels of convolutions, inside of a
            model's blocks and of what else maps features to features.
        others: the rule of all other parameters: embeddings, heads, norms, biases, tokenizers.
        construct: makes the optimizer of groups of parameters. A group says by ``rule`` which rule is its own, and by
            ``fragments`` what each of its tensors holds of whole parameters; an engine that hands the optimizer other
            tensors than parameters writes it anew.
        skips_on_device: whether its step leaves weights as they are where its attribute ``found_inf``, a tensor on the
            device, is 1: without the host knowing.
    """

    matrices: UpdateRule
    others: UpdateRule
    construct: Callable[..., torch.optim.Optimizer]
    skips_on_device: bool = False

    @property
    def needs_whole_matrices(self) -> bool:
        """Says whether one of the rules needs whole matrices."""
        return self.matrices.needs_whole_matrices or self.others.needs_whole_matrices

    def rule(self, placement: Placement) -> UpdateRule:
        """Returns the rule by which a parameter is updated."""
        is_matrix = len(placement.shape) in (2, KERNEL_DIMS)
        return self.matrices if placement.in_block and is_matrix else self.others

    def build(
        self, parameters: Mapping[str, nn.Parameter], placements: Mapping[str, Placement], weight_decay: float
    ) -> torch.optim.Optimizer:
        """Returns the optimizer of parameters by name; only matrices are decayed.

        Args:
            parameters: this rank's parts.
            placements: what part of the whole each is.

        Raises:
            ConfigError: where the optimizer treats matrices of blocks apart and the model has none.
        """
        from sciml.parallel.placement import Fragment

        groups: dict[tuple[UpdateRule, float], dict[str, nn.Parameter]] = {}
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                decay = weight_decay if parameter.ndim >= 2 else 0.0
                groups.setdefault((self.rule(placements[name]), decay), {})[name] = parameter
        if self.needs_whole_matrices and not any(self.rule(p).needs_whole_matrices for p in placements.values()):
            raise ConfigError(
                "must be one that treats all parameters alike, since this model's sharding plan names no blocks",
                key="optim",
                hint="try optim=adamw",
            )
        return self.construct(
            [
                {
                    "params": list(group.values()),
                    "weight_decay": decay,
                    "rule": rule,
                    "fragments": {parameter: [Fragment(0, placements[name])] for name, parameter in group.items()},
                }
                for (rule, decay), group in groups.items()
            ]
        )


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], placements: Mapping[str, Placement], config: OptimConfig
) -> torch.optim.Optimizer:
    """Returns the optimizer that a configuration asks for; see :meth:`OptimizerSpec.build`."""
    return optimizer_spec(config).build(parameters, placements, config.weight_decay)


def optimizer_spec(config: OptimConfig) -> OptimizerSpec:
    """Returns what there is to know of the optimizer that a configuration asks for."""
    return OPTIMIZERS[config.name](config)


def _adamw(config: OptimConfig) -> OptimizerSpec:
    def construct(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=_is_real(groups))

    return OptimizerSpec(ADAMW, ADAMW, construct, skips_on_device=True)


def _sgd(config: OptimConfig) -> OptimizerSpec:
    def construct(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)

    rule = UpdateRule(("momentum_buffer",), moved=44) if config.momentum else UpdateRule((), moved=24)
    return OptimizerSpec(rule, rule, construct)


def _muon(config: OptimConfig) -> OptimizerSpec:
    def construct(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        from sciml.training.muon import Muon

        adamw: dict[str, Any] = {"betas": config.betas, "eps": config.eps, "fused": _is_real(groups)}
        return Muon(groups, lr=config.lr, momentum=config.momentum, **adamw)

    rule = UpdateRule(("momentum_buffer",), moved=56, iterations=5)
    return OptimizerSpec(rule, ADAMW, construct, skips_on_device=True)


def _is_real(groups: list[dict[str, Any]]) -> bool:
    """Says whether parameters have memory; AdamW's fused kernel, which reads and writes all of it once, needs that."""
    return not any(parameter.is_meta for group in groups for parameter in group["params"])


# One kernel reads parameter, gradient and moments, and writes all but the gradient.
ADAMW = UpdateRule(("exp_avg", "exp_avg_sq"), moved=28, counts_steps=True)

OPTIMIZERS: Mapping[str, Callable[[OptimConfig], OptimizerSpec]] = {"adamw": _adamw, "muon": _muon, "sgd": _sgd}
"""By the name that ``optim.name`` takes."""


def state_of(optimizer: torch.optim.Optimizer, parameter: Float[Tensor, "..."], rule: UpdateRule) -> dict[str, Tensor]:
    """Returns the optimizer's tensors of a parameter; made as the optimizer's first step would make them."""
    import torch

    state = optimizer.state[parameter]
    if not state:
        if rule.counts_steps:
            state["step"] = torch.zeros((), device=parameter.device)
        state |= {key: torch.zeros_like(parameter, memory_format=torch.preserve_format) for key in rule.state}
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
