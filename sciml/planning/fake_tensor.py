"""Tensors that have a shape and no memory: what operators do to them is known, and nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sciml.data.batch_tensors import map_tensors

T = TypeVar("T")

LARGE = 2**14
"""Elements from which on a tensor that never meets a parameter is not worth its values: positions, say, not tables."""
_CPU, _META = torch.device("cpu"), torch.device("meta")
_READ_VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class ReadsValuesError(Exception):
    """Says that an operator needs the values of tensors that have none."""


class FakeTensor(Tensor):
    """Reports the CPU as its device, and computes on the meta device, where tensors have shapes alone.

    Autocast and the choice of attention kernels depend on where tensors are, and for the meta device there is neither.
    torch has fake tensors of its own, for compilers and for sizes that are not known; each of their operations takes
    ten times as long. Blocks are alike: what an operator makes of some shapes is remembered.

    Attributes:
        meta: stands for it on the meta device; views of one tensor share the storage of theirs.
    """

    meta: Shaped[Tensor, "..."]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, meta: Shaped[Tensor, "*shape"]) -> FakeTensor:
        size, strides, offset = meta.size(), meta.stride(), meta.storage_offset()
        fake = Tensor._make_wrapper_subclass(cls, size, strides, offset, dtype=meta.dtype, device=_CPU)
        fake.meta = meta
        return fake

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"FakeTensor({tuple(self.shape)}, {self.dtype})"

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.meta.untyped_storage()

    def tolist(self) -> Any:
        raise ReadsValuesError("tolist")

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise ReadsValuesError("numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        key = _key(func, args, kwargs)
        if key in _RESULTS:
            return _new(_RESULTS[key])
        inputs: dict[int, FakeTensor] = {}
        arguments = _on_meta(args, inputs)
        options = {name: _on_meta(value, inputs) for name, value in (kwargs or {}).items()}
        if options.get("device") is not None:
            options["device"] = _META
        try:
            result = func(*arguments, **options)
        except (NotImplementedError, RuntimeError) as error:
            if _READ_VALUES & {*func.tags}:
                raise ReadsValuesError(str(func)) from error
            raise
        if key is not None and not _shares_memory(result, inputs):
            _RESULTS[key] = _layout(result)
        return _fake(result, inputs)


def without_values(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Returns what an operator makes of its arguments: fake tensors where they or its result are large, however real.

    Real ones stay where only their values tell the shape of the result, and so do views of theirs.
    """
    if func.is_view or func._schema.is_mutable or func.namespace != "aten" or not _READ_VALUES.isdisjoint(func.tags):
        return func(*args, **kwargs)
    given = [*tensors_among(args), *tensors_among(kwargs.values())]
    if given:
        real = any(isinstance(one, FakeTensor) for one in given) or all(one.numel() < LARGE for one in given)
        return func(*args, **kwargs) if real else FakeTensor.__torch_dispatch__(func, (), args, kwargs)
    made = FakeTensor.__torch_dispatch__(func, (), args, kwargs)
    is_large = isinstance(made, FakeTensor) and made.numel() >= LARGE
    return made if is_large else func(*args, **kwargs)


def tensors_among(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yields the tensors among the arguments or the results of an operator, which nest in lists and tuples alone."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_among(value)


class _Layout(NamedTuple):
    """Describes a tensor."""

    size: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    is_fake: bool


_RESULTS: dict[Any, Any] = {}
"""Layouts of results by operator and arguments, of operators that return new memory."""


def _key(func: Any, args: Any, kwargs: Any) -> Any:
    """Returns all that the layout of a result depends on; None of an operator that writes into what it is given."""
    if func.is_view or func._schema.is_mutable or func.namespace != "aten":
        return None
    return func, _layout(args), tuple((name, _layout(value)) for name, value in (kwargs or {}).items())


def _layout(value: Any) -> Any:
    """Returns arguments or results with layouts in the places of tensors."""
    if isinstance(value, Tensor):
        return _Layout(value.size(), value.stride(), value.dtype, isinstance(value, FakeTensor))
    if isinstance(value, list | tuple):
        return tuple(map(_layout, value))
    return (float, value) if isinstance(value, float) else value  # which equals an integer, but makes other types


def _new(layout: Any) -> Any:
    """Returns results with new tensors in the places of layouts."""
    if isinstance(layout, _Layout):
        return FakeTensor(torch.empty_strided(layout.size, layout.strides, dtype=layout.dtype, device=_META))
    return tuple(map(_new, layout)) if isinstance(layout, tuple) else layout


def _shares_memory(result: Any, inputs: Mapping[int, FakeTensor]) -> bool:
    """Says whether a result, on the meta device, is made of the memory of an input."""
    given = {id(tensor.meta.untyped_storage()) for tensor in inputs.values()}
    return any(id(leaf.untyped_storage()) in given for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _on_meta(value: Any, inputs: dict[int, FakeTensor]) -> Any:
    """Returns an argument with all tensors on the meta device; notes which of them stand for which fake ones."""
    if isinstance(value, FakeTensor):
        inputs[id(value.meta)] = value
        return value.meta
    if isinstance(value, list | tuple):
        return [_on_meta(one, inputs) for one in value]
    if isinstance(value, Tensor) and value.ndim:  # the CPU's own scalars go with tensors of any device
        return torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=_META)
    return value


def _fake(value: Any, inputs: dict[int, FakeTensor]) -> Any:
    """Returns a result with all tensors fake; an operator that writes in place returns what it wrote into."""
    if isinstance(value, Tensor):
        known = inputs.get(id(value))
        return FakeTensor(value) if known is None else known
    return type(value)(_fake(one, inputs) for one in value) if isinstance(value, list | tuple) else value


def storage_of(tensor: Shaped[Tensor, "..."]) -> torch.UntypedStorage:
    """Returns what all views of a tensor, fake or real, have in common."""
    return tensor.untyped_storage()


def fake_like(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Returns a fake tensor of another one's shape and type, contiguous."""
    return FakeTensor(torch.empty(tensor.shape, dtype=tensor.dtype, device=_META))


def fake_parameters(model: nn.Module) -> None:
    """Replaces parameters and buffers on the meta device by fake ones.

    What never meets a parameter (neighbor lists, refinement) is computed as always, so that shapes which depend on data
    are those of the data; but see :func:`without_values`.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(fake_like(parameter), parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                setattr(module, name, fake_like(buffer))


def fake_batch(batch: T) -> T:
    """Returns a batch of fake tensors of the same shapes, whatever records and mappings it consists of."""
    return map_tensors(fake_like, batch)
