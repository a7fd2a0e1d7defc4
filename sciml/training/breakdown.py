"""Measures where the time of a step goes: computing, waiting for data, waiting for peers along each axis of the
mesh.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed import Work

from sciml.distributed.axes import GRADIENTS, SAMPLES, Role, axes_in, axes_of
from sciml.distributed.communication import KINDS, AxisNames, Call, belongs_to, watched
from sciml.distributed.mesh import Mesh

PARAMETERS = axes_of(Role.DATA)[0].name
"""The account of all reduction and gathering of parameters and gradients."""


class Breakdown:
    """Measures single steps.

        with breakdown.step(data_wait, measure=due) as times:
            output = engine.train_step(...)
        record |= times

    gives ``time_data``, ``time_compute`` and one of ``time_tp``, ``time_sp``, ``time_pp``, ``time_dp``, ``time_all``
    for each way of sharing that the mesh has, in seconds of this process, as things come to a stand:

    - Communication counts as long as somebody waits for it: from call to return, and in every ``wait``. What overlaps
      with computing counts for nothing; it slows the computing down and shows there. On a CPU the host waits, and its
      clock is read. On an accelerator the stream of the computation waits, and events on it are read after the step:
      overlap stays as it is. There FSDP2 lets streams wait for events of its own, which this does not see: that part
      of its waiting is in ``time_compute``, and only a trace shows it.
    - Waiting for a slower peer is communication, too: ``time_pp`` holds the pipeline's bubble, and whatever collective
      comes first after an imbalance takes the blame for it.
    - ``time_dp`` is all reduction and gathering of parameters and gradients (dp, shard, and sp together with these);
      ``time_all`` is what spans other axes together, such as the gradient norm.
    - ``time_compute`` is the rest: Python, the optimizer and launching kernels included.

    A step that is not measured costs nothing.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.device = mesh.device
        self.axes = AxisNames(mesh)
        used = [axis for axis, degree in mesh.degrees.items() if degree > 1]
        names = {_budget(axis) for axis in used}
        self.budgets = sorted(names | ({"all"} if len(used) > 1 else set()))

    @contextmanager
    def step(self, data_wait: float = 0.0, *, measure: bool = True) -> Iterator[dict[str, float]]:
        """Measures whatever runs inside the ``with`` block.

        Args:
            data_wait: seconds that this step had waited for its samples before.
            measure: without it nothing is done and nothing is reported.

        Yields:
            An empty dictionary, filled on leaving; not where the block raised an error.
        """
        times: dict[str, float] = {}
        if not measure:
            yield times
            return
        stalls = _Stalls(self.axes, _HostClock() if self.device.type == "cpu" else _StreamClock(self.device))
        with watched(stalls.on_call), stalls.on_waits(), stalls.span("step"):
            yield times
        seconds = stalls.seconds()
        waits = dict.fromkeys(self.budgets, 0.0)
        for axes, value in seconds.items():
            if axes != "step":
                name = _budget(axes)
                waits[name] = waits.get(name, 0.0) + value
        times |= {"time_data": data_wait, "time_compute": seconds["step"]}
        times |= {f"time_{name}": value for name, value in waits.items()}


def _budget(axes: str) -> str:
    """Returns the budget that is charged for waiting along some axes."""
    roles = {axis.role for axis in axes_in(axes)}
    if roles & {*SAMPLES} and roles <= {*GRADIENTS}:
        return PARAMETERS
    return axes if len(roles) <= 1 else "all"


@dataclass
class _Span:
    axes: str
    start: Any
    parent: _Span | None
    end: Any = None


class _Stalls:
    """Measures the time between call and return of collectives and of waits for them, each without those inside it."""

    def __init__(self, axes: AxisNames, clock: _HostClock | _StreamClock) -> None:
        self.axes, self.clock = axes, clock
        self.owner = threading.get_ident()
        self.spans: list[_Span] = []
        self.current: _Span | None = None
        self.latest = "none"
        self.pending: dict[Work, str] = {}
        self.backward = -1

    def open(self, axes: str) -> _Span:
        self.current = _Span(axes, self.clock.mark(), self.current)
        self.spans.append(self.current)
        return self.current

    def close(self, span: _Span) -> None:
        span.end = self.clock.mark()
        self.current = span.parent

    @contextmanager
    def span(self, axes: str) -> Iterator[None]:
        span = self.open(axes)
        try:
            yield
        finally:
            self.close(span)

    def on_call(self, name: str, args: tuple[Any, ...], proceed: Callable[[], Any]) -> Any:
        """Times a collective, and remembers the axes of what is to be waited for."""
        if name not in KINDS:  # wait_tensor: a functional collective, waited for as soon as it was called
            with self.span(self.latest):
                return proceed()
        call = Call.of(name, args, self.axes)
        self.latest = call.axes
        if call.kind == "all_reduce":
            self._watch_end_of_backward()
        with self.span(call.axes):
            output = proceed()
        # Works keep tensors alive, so only those are kept for which somebody may still wait.
        self.pending = {work: axes for work, axes in self.pending.items() if not work.is_completed()}
        boxed = output[-1] if isinstance(output, tuple) else output
        work = None if boxed is None else Work.unbox(boxed)
        if work is not None:  # as in a batch of sends and receives, whose work is made at its end
            self.pending[work] = call.axes
        return output

    @contextmanager
    def on_waits(self) -> Iterator[None]:
        """Times every wait that is made from Python."""
        original = Work.wait

        def wait(work: Work, *args: Any, **kwargs: Any) -> Any:
            if not belongs_to(self.owner):
                return original(work, *args, **kwargs)
            with self.span(self.pending.pop(work, self.latest)):
                return original(work, *args, **kwargs)

        Work.wait = wait  # type: ignore
        try:
            yield
        finally:
            Work.wait = original  # type: ignore[method-assign]

    def _watch_end_of_backward(self) -> None:
        """Times DDP's wait for its buckets, which it makes in C++ in a callback at the end of the backward pass.

        Callbacks run in the order in which they were queued, and DDP queues its own after the last bucket's call. So
        one queued now runs before it, and one that that one queues runs after it.
        """
        task = torch._C._current_graph_task_id()
        if task in (-1, self.backward):
            return
        self.backward = task
        queue = torch.autograd.Variable._execution_engine.queue_callback

        def before() -> None:
            # What Python waited for is no longer pending, so what is pending here is waited for in C++.
            waiting = [axes for work, axes in self.pending.items() if not work.is_completed()]
            if waiting:
                span = self.open(waiting[-1])
                queue(lambda: self.close(span))

        queue(before)

    def seconds(self) -> dict[str, float]:
        """Returns the seconds by axes, each span's time without the spans inside it."""
        self.pending.clear()
        self.clock.finish()
        totals: dict[str, float] = {}
        for span in self.spans:
            length = self.clock.seconds(span.start, span.end)
            totals[span.axes] = totals.get(span.axes, 0.0) + length
            if span.parent is not None:
                totals[span.parent.axes] -= length
        return totals


class _HostClock:
    """Measures seconds of the host: gloo blocks it while it waits."""

    def mark(self) -> float:
        return time.perf_counter()

    def finish(self) -> None:
        pass

    def seconds(self, start: float, end: float) -> float:
        return end - start


class _StreamClock:
    """Measures seconds of the stream on which an accelerator computes: waits happen there, while the host runs
    ahead.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.accelerator.current_stream(device)

    def mark(self) -> torch.Event:
        event = torch.Event(device=self.device, enable_timing=True)
        event.record(self.stream)
        return event

    def finish(self) -> None:
        torch.accelerator.synchronize()

    def seconds(self, start: torch.Event, end: torch.Event) -> float:
        return start.elapsed_time(end) / 1000
