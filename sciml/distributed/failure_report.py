"""Ends a process that has peers: the first error is reported once, and errors that follow from it are not."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import time
import traceback
from typing import Any

import psutil
from torch.distributed import DistError, PrefixStore, Store

from sciml.core.errors import SciMLError
from sciml.distributed.launcher import Launch, launched
from sciml.distributed.rendezvous import NoStoreError, await_port, joined_store, open_store, ranges

CONNECT_S = 20.0
"""How long to try to reach the store where no rendezvous has taken place. torch looks up the host name behind each
connection to its store: where no name server answers, that alone takes 10 s."""
UNRESPONSIVE_S = 3.0
"""How long a process may not respond, while others fail in communicating, before it counts as dead."""
KEEP_OPEN_S = 5.0
"""How much longer than it takes to connect the store stays open for peers that have not read the report."""
_COMMUNICATION = re.compile(r"gloo|nccl|rccl|connection (closed|reset|refused)|broken pipe|tcpstore", re.IGNORECASE)


def report_failure(error: BaseException) -> int:
    """Reports on stderr why this process ends, unless a peer has reported it already.

    An error of this process's own is written to the store before its sockets close, so that peers, whose
    communication fails in consequence, read it there. A process that was killed writes nothing: then the first
    peer to notice looks for processes that do not respond.

    Returns:
        The exit code: that of the first error.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun ends the peers of a dead process; let them finish
    launch = launched()
    try:
        store = _rendezvous_store(launch)
        code = _report(error, launch, store)
        store.set(f"read/{launch.rank}", "")
        if launch.keeps_store:
            _keep_open(store, launch)
        return code
    except (SciMLError, DistError):  # the store is gone, and rank 0 that kept it
        one_a_node = launch.rank == 1 or launch.local_rank == 0
        if not _is_consequence(error) and (one_a_node or not isinstance(error, NoStoreError)):
            print(_message(error, launch), file=sys.stderr)
        elif _is_consequence(error) and one_a_node:
            print(f"error: rank 0 is gone, and {_origin(launch)} ended with it", file=sys.stderr)
        return _code(error)


def _rendezvous_store(launch: Launch) -> Store:
    """Returns the store through which processes exchange reports."""
    joined = joined_store()
    if joined is None:
        return PrefixStore(f"before-{launch.attempt}", open_store(launch, CONNECT_S))
    if not launch.keeps_store:
        await_port(launch, CONNECT_S)
    return joined


def _report(error: BaseException, launch: Launch, store: Store) -> int:
    store.set(f"ended/{launch.rank}", "")
    if not _is_consequence(error):
        return _publish(_record(error, launch), _message(error, launch), launch, store)
    if store.compare_set("examiner", "", str(launch.rank)).decode() != str(launch.rank):
        return _await_report(launch, store, 2 * UNRESPONSIVE_S)
    absent, fate = _unresponsive(launch, store)
    if store.check(["error"]):
        return _await_report(launch, store, 0)
    if not absent:  # all failed in communicating and none was the first: shown as it is
        return _publish(_record(error, launch), _message(error, launch), launch, store)
    names = f"rank{'s' if len(absent) > 1 else ''} {ranges(absent)}{_on_hosts(absent, store)}"
    text = f"{names} {fate}"
    for rank in absent:
        store.set(f"read/{rank}", "")  # so that nobody waits for them
    return _publish(
        {**_record(error, launch), "text": text}, f"error: {text} ({_origin(launch)} noticed)", launch, store
    )


def _publish(record: dict[str, Any], shown: str, launch: Launch, store: Store) -> int:
    """Shows an error if it is the first, or another than the first."""
    first = json.loads(store.compare_set("error", "", json.dumps(record)))
    if first == record:
        print(shown, file=sys.stderr)
        _write_torchrun_summary(record)
    elif first["text"] != record["text"]:
        _relay(first, launch)
        print(shown, file=sys.stderr)
    return record["code"]


def _await_report(launch: Launch, store: Store, patience_s: float) -> int:
    """Waits for the error that another process shows."""
    deadline = time.monotonic() + patience_s
    while not store.check(["error"]):
        if time.monotonic() > deadline:
            print(f"{_origin(launch)} ended because another rank failed", file=sys.stderr)
            return 1
        time.sleep(0.1)
    first = json.loads(store.get("error"))
    _relay(first, launch)
    return first["code"]


def _relay(first: dict[str, Any], launch: Launch) -> None:
    # Each host may have a terminal or a log of its own: one line on each tells where to look.
    if launch.local_rank == 0 and first["host"] != launch.host:
        print(f"error: {first['text']} (rank {first['rank']} on {first['host']})", file=sys.stderr)


def _unresponsive(launch: Launch, store: Store) -> tuple[list[int], str]:
    """Returns ranks that are dead on this host, or else those that do not respond for a while; and what befell them."""
    absent = list(range(launch.size))
    deadline = time.monotonic() + UNRESPONSIVE_S
    while True:
        absent = [rank for rank in absent if not store.check([f"ended/{rank}"])]
        dead = [rank for rank in absent if _is_dead(rank, launch, store)]
        if dead:
            return dead, "died without an error: killed, or out of memory"
        if not absent or store.check(["error"]) or time.monotonic() > deadline:
            return absent, "stopped responding: stuck, killed, or out of memory"
        time.sleep(0.1)


def _is_dead(rank: int, launch: Launch, store: Store) -> bool:
    member = _member(rank, store)
    if member is None or member["host"] != launch.host:
        return False
    try:
        return psutil.Process(member["pid"]).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _member(rank: int, store: Store) -> dict[str, Any] | None:
    """Returns host and process of a rank, as it gave them at the rendezvous."""
    return json.loads(store.get(str(rank))) if store.check([str(rank)]) else None


def _on_hosts(ranks: list[int], store: Store) -> str:
    hosts = sorted({member["host"] for rank in ranks[:64] if (member := _member(rank, store)) is not None})
    return f" on {', '.join(hosts[:4])}" if hosts else ""


def _keep_open(store: Store, launch: Launch) -> None:
    """Keeps the store open until all peers have read it, or could have."""
    has_joined = joined_store() is not None
    deadline = time.monotonic() + KEEP_OPEN_S + (0 if has_joined else CONNECT_S)
    absent = [rank for rank in range(launch.size) if not has_joined or _member(rank, store) is not None]
    while absent and time.monotonic() < deadline:
        absent = [rank for rank in absent if not store.check([f"read/{rank}"]) and not _is_dead(rank, launch, store)]
        time.sleep(0.1)


def _is_consequence(error: BaseException) -> bool:
    if isinstance(error, SciMLError):
        return error.__cause__ is not None and _is_consequence(error.__cause__)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError | OSError) and _COMMUNICATION.search(str(error)) is not None
    )


def _record(error: BaseException, launch: Launch) -> dict[str, Any]:
    text = str(error) if isinstance(error, SciMLError) else f"{type(error).__name__}: {error}"
    return {"rank": launch.rank, "host": launch.host, "code": _code(error), "text": text}


def _message(error: BaseException, launch: Launch) -> str:
    if isinstance(error, SciMLError):
        return f"error: {error} ({_origin(launch)})"
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip()
    return f"{trace}\nerror: {type(error).__name__} ({_origin(launch)})"


def _origin(launch: Launch) -> str:
    return f"rank {launch.rank} on {launch.host}"


def _code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, SciMLError) else 1


def _write_torchrun_summary(record: dict[str, Any]) -> None:
    """Writes the sentence into torchrun's own summary, in the file and form that it reads."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        # torchrun counts in whole seconds and takes the lowest rank among equals for the first.
        details = {"py_callstack": record["text"], "timestamp": str(int(time.time()) - 1)}
        with contextlib.suppress(OSError), open(file, "w") as summary:
            json.dump({"message": {"message": record["text"], "extraInfo": details}}, summary)
