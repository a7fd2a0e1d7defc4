"""The tensors of a batch, whatever records and mappings it consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """Returns a batch with others in the places of its tensors."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(function, value) for key, value in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        return replace(batch, **{name: map_tensors(function, value) for name, value in values.items()})
    return batch


@dataclass(frozen=True)
class Pinnable:
    """Holds a batch for torch's loader, which pins what has such a method."""

    batch: Any

    def pin_memory(self, device: Any = None) -> Any:
        """Returns the batch in pinned memory, from which an accelerator copies while it computes."""
        return map_tensors(Tensor.pin_memory, self.batch)


@dataclass(frozen=True)
class PinnableCollate:
    """Makes batches of samples that the loader can pin."""

    collate: Callable[[Sequence[Any]], Any]

    def __call__(self, samples: Sequence[Any]) -> Pinnable:
        return Pinnable(self.collate(samples))
