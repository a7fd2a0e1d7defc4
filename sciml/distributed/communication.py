"""Communication of a block of code, counted along the axes of the mesh, whoever makes the calls.

Every collective of torch, be it called from Python, by DDP's reducer in C++, by FSDP2, by a pipeline schedule, by
DeepSpeed or by a functional collective inside a DTensor, is an operator of the namespace ``c10d``. While somebody
watches, a kernel stands in front of these operators (dispatch key BackendSelect: just above the backends and below
autograd and all Python modes, so nothing hides a call from it) and all other operators run as always.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from sciml.distributed.axes import AXES, Axis, join
from sciml.distributed.mesh import Mesh, coordinate

KINDS = {
    "allreduce_": "all_reduce",
    "allreduce_coalesced_": "all_reduce",
    "allgather_": "all_gather",
    "_allgather_base_": "all_gather",
    "allgather_coalesced_": "all_gather",
    "allgather_into_tensor_coalesced_": "all_gather",
    "reduce_scatter_": "reduce_scatter",
    "_reduce_scatter_base_": "reduce_scatter",
    "reduce_scatter_tensor_coalesced_": "reduce_scatter",
    "alltoall_": "all_to_all",
    "alltoall_base_": "all_to_all",
    "broadcast_": "broadcast",
    "reduce_": "reduce",
    "gather_": "gather",
    "scatter_": "scatter",
    "send": "send",
    "recv_": "recv",
    "recv_any_source_": "recv",
    "barrier": "barrier",
    "monitored_barrier_": "barrier",
}
"""Operators of ``c10d``, and what each is called here."""

Watcher = Callable[[str, tuple[Any, ...], Callable[[], Any]], Any]
"""Is given an operator's name, its arguments and the rest of the call, which it makes; returns what that returned."""

_watchers: list[Watcher] = []
_kernels: list[torch.library.Library] = []


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Lets a watcher stand around every collective of this thread and of its backward passes.

    Calls of other threads, such as one that writes a checkpoint meanwhile, are left alone. Also ``wait_tensor``, by
    which functional collectives are waited for, is shown. Putting the kernels in place and removing them takes less
    than a millisecond; outside, nothing is left that could cost anything.
    """
    owner = threading.get_ident()

    def own_calls(name: str, args: tuple[Any, ...], proceed: Callable[[], Any]) -> Any:
        return watcher(name, args, proceed) if belongs_to(owner) else proceed()

    if not _watchers:
        _put_kernels()
    _watchers.append(own_calls)
    try:
        yield
    finally:
        _watchers.remove(own_calls)
        if not _watchers:
            while _kernels:
                _kernels.pop()._destroy()


def belongs_to(thread: int) -> bool:
    """Says whether the caller is that thread, or in a backward pass: accelerators have threads of their own for
    these.
    """
    return threading.get_ident() == thread or torch._C._current_graph_task_id() != -1


def _put_kernels() -> None:
    for namespace, names in (("c10d", tuple(KINDS)), ("_c10d_functional", ("wait_tensor",))):
        library = torch.library.Library(namespace, "IMPL")
        for name in names:
            operator = getattr(getattr(torch.ops, namespace), name).default
            library.impl(name, partial(_kernel, operator, name), "BackendSelect", with_keyset=True)
        _kernels.append(library)


def _kernel(operator: Any, name: str, keys: torch._C.DispatchKeySet, *args: Any) -> Any:
    below = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)
    call = partial(operator.redispatch, keys & below, *args)
    for watcher in tuple(_watchers):
        call = partial(watcher, name, args, call)
    return call()


@dataclass(frozen=True)
class Count:
    """Counts how often messages were sent, and how much was in them.

    Attributes:
        calls: collectives, sends or receives.
        bytes: payload of this rank, summed over the calls: the tensor for all_reduce, broadcast and reduce; the
            rank's own part for all_gather and gather; the whole to be shared out for reduce_scatter, scatter and
            all_to_all; the message for send and recv. A barrier has none.
        wire_bytes: bytes that a rank puts on the wire where n ranks pass the payload b around a ring: 2 (n - 1)/n b for
            all_reduce, (n - 1) b for all_gather, b for send, 0 for recv, and (n - 1)/n b for all else (rooted
            collectives: the mean over the ranks). What a backend really does may differ: trees, say.
    """

    calls: int = 0
    bytes: int = 0
    wire_bytes: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.calls + other.calls, self.bytes + other.bytes, self.wire_bytes + other.wire_bytes)


class AxisNames:
    """Names process groups by the axes along which their members differ, joined with ``_`` as in ``dp_sp``.

    Only ranks are compared: it does not matter who made the group. A send or receive is named by its two ends. The
    group of all processes is that of the axis where the mesh has only one; a group of one process is ``none``.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._known: dict[tuple[dist.ProcessGroup, int | None], str] = {}

    def of(self, group: dist.ProcessGroup, peer: int | None = None) -> str:
        """Returns the name of a group, or of the way to one member, given by its number within the group."""
        if (group, peer) not in self._known:
            ranks = dist.get_process_group_ranks(group)
            ends = ranks if peer is None else [self.mesh.world.rank, ranks[peer]]
            self._known[group, peer] = join(axis for axis in AXES if self._differ(ends, axis)) or "none"
        return self._known[group, peer]

    def _differ(self, ranks: list[int], axis: Axis) -> bool:
        return len({coordinate(rank, axis, self.mesh.degrees) for rank in ranks}) > 1


@dataclass(frozen=True)
class Call:
    """Describes one call from its arguments: kind, axes of its group, and what it counts for."""

    kind: str
    axes: str
    count: Count

    @classmethod
    def of(cls, name: str, args: tuple[Any, ...], axes: AxisNames) -> Call:
        """Reads the arguments of an operator of ``c10d``."""
        position = _place_of_group(name)
        group = dist.ProcessGroup.unbox(args[position])
        kind = KINDS[name]
        # The payload stands before the group in all signatures; the peer of a send or receive behind it.
        peer = args[position + 1] if name in ("send", "recv_") else None
        size = 0 if kind == "barrier" else _bytes(args[position - 1])
        return cls(kind, axes.of(group, peer), Count(1, size, size * ring(kind, group.size())))


@lru_cache
def _place_of_group(name: str) -> int:
    schema = getattr(torch.ops.c10d, name).default._schema
    return [argument.name for argument in schema.arguments].index("process_group")


def _bytes(payload: Any) -> int:
    return payload.nbytes if isinstance(payload, Tensor) else sum(_bytes(part) for part in payload)


def ring(kind: str, n: int) -> float:
    """Returns how many times its payload a rank puts on the wire, around a ring; as :class:`Count` says."""
    special = {"all_reduce": 2 * (n - 1) / n, "all_gather": n - 1, "send": 1, "recv": 0}
    return special.get(kind, (n - 1) / n)


class CommunicationVolume:
    """Counts communication while it is open.

        with CommunicationVolume(mesh) as traffic:
            engine.train_step(...)
        traffic.table()["tp"]["all_reduce"].bytes

    Operators run as always, so counting a step with tensors on the meta device and a process group of the ``fake``
    backend tells the traffic of a mesh that is not there.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._axes = AxisNames(mesh)
        self._counts: dict[str, dict[str, Count]] = defaultdict(dict)
        self._open = ExitStack()

    def __enter__(self) -> CommunicationVolume:
        self._open.enter_context(watched(self._count))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _count(self, name: str, args: tuple[Any, ...], proceed: Callable[[], Any]) -> Any:
        if name in KINDS:
            call = Call.of(name, args, self._axes)
            self._counts[call.axes][call.kind] = self.of(call.axes, call.kind) + call.count
        return proceed()

    def table(self) -> dict[str, dict[str, Count]]:
        """Counts by axes and kind; only what was seen."""
        return {axes: dict(kinds) for axes, kinds in self._counts.items()}

    def of(self, axes: str, kind: str) -> Count:
        """Returns the count of one kind along some axes, zero where there was none."""
        return self._counts.get(axes, {}).get(kind, Count())
