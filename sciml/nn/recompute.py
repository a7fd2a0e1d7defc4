"""Activations that are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Generic, Literal, TypeVar, get_args

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from sciml.core.seeding import shared_generator

Recompute = Literal["none", "attention", "selective", "full"]
RECOMPUTES: tuple[Recompute, ...] = get_args(Recompute)
T = TypeVar("T")

_PRODUCTS = frozenset({torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default})
_KEPT = frozenset(
    {
        *_PRODUCTS,
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    }
)


_results: ContextVar[tuple[list[Any], bool] | None] = ContextVar("results", default=None)
"""Holds what :func:`kept` has computed in a forward pass that keeps products, and whether it is made again."""
_inside: ContextVar[bool] = ContextVar("inside", default=False)
_made_again: ContextVar[bool] = ContextVar("made_again", default=False)


def _keep_products(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    keeps = op in _KEPT and not _inside.get()
    return CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.PREFER_RECOMPUTE


def is_made_again() -> bool:
    """Says whether the backward pass makes what is computed now a second time, or does so at this moment."""
    return _made_again.get()


def kept(compute: Callable[[], T]) -> T:
    """Returns what a function computes without autograd's knowledge, as one product that ``selective`` keeps.

    None of the products and messages inside are then kept, nor made again.
    """
    keeper = _results.get()
    if keeper is None:
        return compute()
    results, is_again = keeper
    if is_again:
        result: T = results.pop(0)
        return result
    token = _inside.set(True)
    try:
        result = compute()
    finally:
        _inside.reset(token)
    results.append(result)
    return result


@contextmanager
def for_kept() -> Iterator[None]:
    """Lets products be computed whose results go into a function of :func:`kept` and nowhere else.

    Where ``selective`` keeps what that function makes of them, it keeps none of them; and as they are read by nobody
    when the pass is made again, they then have a shape and no values.
    """
    token = _inside.set(_results.get() is not None)
    try:
        yield
    finally:
        _inside.reset(token)


class _WithoutProducts(TorchDispatchMode):
    """Answers products inside of :func:`for_kept` by tensors of their shapes, which take no memory.

    It stands behind torch's own mode, which counts operators, so that it finds the first pass's results. What is
    compiled runs as if neither were there.
    """

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS or not _inside.get():
            return func(*args, **(kwargs or {}))
        first, second = args[-2:]
        return first.new_empty(()).expand(*first.shape[:-1], second.shape[-1])


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Returns the contexts of a forward pass that keeps products, and of the same pass made again."""
    results: list[Any] = []
    first, again = create_selective_checkpoint_contexts(_keep_products)
    return _keeping(first, results, False), _keeping(again, results, True)


@contextmanager
def _keeping(context: AbstractContextManager[Any], results: list[Any], is_again: bool) -> Iterator[None]:
    token = _results.set((results, is_again))
    try:
        with _WithoutProducts() if is_again else nullcontext(), context:
            yield
    finally:
        _results.reset(token)


def recompute(mode: str, function: Callable[..., T], *args: Any) -> T:
    """Applies a function, keeping as much for the backward pass as the mode says.

    Args:
        mode: ``none`` keeps everything, as does ``attention``, which :class:`sciml.nn.attention.SelfAttention` sees to
            inside of the function; ``selective`` keeps matrix products and attention and computes what
            lies between them again, which costs next to no FLOPs (of products that ranks add up it keeps the sum
            alone); ``full`` keeps the inputs alone.
        function: a block of the model; it may return tensors in a container.
        args: its inputs.
    """
    if mode in ("none", "attention") or not torch.is_grad_enabled():
        return function(*args)
    function = _Twice(function)
    with _casting_anew():
        contexts: dict[str, Any] = {} if mode == "full" else {"context_fn": _contexts}
        result: T = checkpoint(function, *args, use_reentrant=False, **contexts)
        return result


class _Twice(Generic[T]):
    """Calls a function a second time with what it drew from :func:`shared_generator` the first time.

    Of torch's own generators checkpoints see to that themselves.
    """

    def __init__(self, function: Callable[..., T]) -> None:
        self.function, self.first = function, True
        self.state = shared_generator().get_state()

    def __call__(self, *args: Any) -> T:
        token = _made_again.set(True)
        try:
            return self._first(*args) if self.first else self._again(*args)
        finally:
            _made_again.reset(token)

    def _first(self, *args: Any) -> T:
        self.first = False
        return self.function(*args)

    def _again(self, *args: Any) -> T:
        generator = shared_generator()
        now = generator.get_state()
        generator.set_state(self.state)
        try:
            return self.function(*args)
        finally:
            generator.set_state(now)


@contextmanager
def _casting_anew() -> Iterator[None]:
    """Lets autocast keep no weights that it has cast.

    They would stay until the end of the forward pass, for nothing, and a block that is applied twice would find them
    the second time in its forward pass and not when it is computed again, which selective recomputation refuses.
    """
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)
