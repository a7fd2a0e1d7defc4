"""How the processes of a run find one another: nobody waits in vain, and nobody works with another version.

Process 0 calls, all others answer, and process 0 gives one verdict for all. Calls carry a fresh number, because
torchrun keeps one store over all its restarts: whatever an earlier attempt left there, addresses of dead
processes among it, would otherwise be taken for this one's.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributed import DistError, PrefixStore, Store, TCPStore

from sciml.core import provenance
from sciml.core.errors import ConfigError, RunError, SciMLError
from sciml.distributed.launcher import Launch

PACKAGES = ("sciml", "torch", "deepspeed")
GRACE_S = 5.0
"""How much longer than process 0 the others wait, so that its verdict reaches them."""
PAUSE_S = 0.05
MOST_NAMED = 4
_joined: dict[str, PrefixStore] = {}


class NoStoreError(RunError):
    """Nobody answers where the processes were to meet."""


def meet(launch: Launch, timeout_s: float) -> Store:
    """Waits until all processes are there; gives the store that belongs to them alone.

    Raises:
        RunError: on every process, where one did not come in time; it names the missing.
        ConfigError: on every process, where one runs another version; it names both.
    """
    store = open_store(launch, timeout_s)
    me = {"rank": launch.rank, "host": launch.host, "pid": os.getpid(), "versions": versions()}
    call = (_lead if launch.rank == 0 else _follow)(store, launch, me, timeout_s)
    own = PrefixStore(call, store)
    _joined["store"] = own
    verdict = json.loads(own.get("verdict"))
    if verdict:
        kind = {"ConfigError": ConfigError, "RunError": RunError}[verdict["kind"]]
        raise kind(verdict["text"])
    return own


def open_store(launch: Launch, timeout_s: float) -> TCPStore:
    """Connects to the place where the processes meet, or opens it where this process keeps it.

    Raises:
        NoStoreError: where nobody answers there.
        ConfigError: where its port is taken.
    """
    host, port = launch.address
    wait = datetime.timedelta(seconds=timeout_s)
    if launch.keeps_store:
        try:
            return TCPStore(host, port, is_master=True, wait_for_workers=False, multi_tenant=True, timeout=wait)
        except DistError:
            raise ConfigError(f"port {port} of {launch.host} is taken", key="MASTER_PORT", hint="29501") from None
    await_port(launch, timeout_s)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=wait)


def joined_store() -> Store | None:
    """The store of this process and its peers; None before they have met."""
    return _joined.get("store")


def versions() -> dict[str, str | None]:
    """What must be the same in all processes."""
    return {"python": platform.python_version(), **{name: provenance.version(name) for name in PACKAGES}}


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as a short text: ``0-3, 5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(shown[:MOST_NAMED]) + (f" and {len(shown) - MOST_NAMED} more" if len(shown) > MOST_NAMED else "")


def await_port(launch: Launch, timeout_s: float) -> None:
    """Waits until the store can be reached.

    Raises:
        NoStoreError: where nobody answers in time.
    """
    # A plain socket asks first: the store's own client fills the terminal with C++ frames where nobody listens.
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(launch.address, timeout=GRACE_S):
            return
        if time.monotonic() > deadline:
            host, port = launch.address
            raise NoStoreError(
                f"rank 0 did not come within {timeout_s:g} s: nobody listens at {host}:{port}, where all were to meet; "
                "look at its output, and whether MASTER_ADDR is a host that all nodes reach"
            )
        time.sleep(PAUSE_S)


def _lead(store: Store, launch: Launch, me: Mapping[str, Any], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    call = secrets.token_hex(4)
    answers = {0: me}
    store.set(f"{call}/0", json.dumps(me))
    store.set("call", call)
    absent = set(range(1, launch.size))
    while absent and time.monotonic() < deadline:
        for rank in [rank for rank in sorted(absent) if store.check([f"{call}/{rank}"])]:
            answers[rank] = json.loads(store.get(f"{call}/{rank}"))
            absent.remove(rank)
        if absent:
            time.sleep(PAUSE_S)
    refusal = _missing(absent, answers, launch.size, timeout_s) if absent else _mixed(answers)
    if refusal is not None:
        # A restarted rank must not answer to a call that has failed. The key stays: who has just seen it would wait.
        store.set("call", "")
    verdict = {} if refusal is None else {"kind": type(refusal).__name__, "text": str(refusal)}
    store.set(f"{call}/verdict", json.dumps(verdict))
    return call


def _follow(store: Store, launch: Launch, me: Mapping[str, Any], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s + GRACE_S
    mine = json.dumps({**me, "answer": secrets.token_hex(4)})
    call = None
    pause = PAUSE_S
    while call is None or not store.check([f"{call}/verdict"]):
        if time.monotonic() > deadline:
            raise RunError(
                f"rank 0 {'did not come' if call is None else 'came and went'} within the {timeout_s:g} s that all "
                "wait for one another; look at its output"
            )
        if store.check(["call"]):
            latest = store.get("call").decode()
            # Where the same rank has answered already, it was in an earlier attempt: that call is over.
            if latest not in ("", call) and store.compare_set(f"{latest}/{launch.rank}", "", mine).decode() == mine:
                call = latest
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return call


def _missing(absent: set[int], answers: Mapping[int, Mapping[str, Any]], size: int, timeout_s: float) -> SciMLError:
    places: dict[str, list[int]] = {}
    for rank, answer in sorted(answers.items()):
        places.setdefault(answer["host"], []).append(rank)
    came = [f"{ranges(ranks)} on {host}" for host, ranks in places.items()]
    more = f" and {len(came) - MOST_NAMED} more hosts" if len(came) > MOST_NAMED else ""
    plural = "s" if len(absent) > 1 else ""
    return RunError(
        f"rank{plural} {ranges(sorted(absent))} of {size} did not come within {timeout_s:g} s; those that came: "
        f"{'; '.join(came[:MOST_NAMED])}{more}"
    )


def _mixed(answers: Mapping[int, Mapping[str, Any]]) -> SciMLError | None:
    first = answers[0]
    for rank, answer in sorted(answers.items()):
        for package, version in first["versions"].items():
            if answer["versions"].get(package) != version:
                return ConfigError(
                    f"rank {rank} on {answer['host']} runs {package} {answer['versions'].get(package)}, rank 0 on "
                    f"{first['host']} runs {version}; start all ranks in the same environment"
                )
    return None
