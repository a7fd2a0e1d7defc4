"""The rendezvous of a run's processes: none waits longer than its time limit, and none runs another version.

Process 0 opens a round, all others register, and process 0 gives one verdict for all. Rounds carry a fresh number,
because torchrun keeps one store over all its restarts: whatever an earlier attempt left there, addresses of dead
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
MAX_NAMED = 4
_joined: dict[str, PrefixStore] = {}


class NoStoreError(RunError):
    """Says that the store of the rendezvous cannot be reached."""


def rendezvous(launch: Launch, timeout_s: float) -> Store:
    """Waits until all processes have joined, and returns a store that belongs to them alone.

    Raises:
        RunError: on every process, where one did not join in time; it names the missing.
        ConfigError: on every process, where one runs another version; it names both.
    """
    store = open_store(launch, timeout_s)
    me = {"rank": launch.rank, "host": launch.host, "pid": os.getpid(), "versions": versions()}
    number = (_lead if launch.rank == 0 else _follow)(store, launch, me, timeout_s)
    own = PrefixStore(number, store)
    _joined["store"] = own
    verdict = json.loads(own.get("verdict"))
    if verdict:
        kind = {"ConfigError": ConfigError, "RunError": RunError}[verdict["kind"]]
        raise kind(verdict["text"])
    return own


def open_store(launch: Launch, timeout_s: float) -> TCPStore:
    """Connects to the store of the rendezvous, or opens it where this process keeps it.

    Raises:
        NoStoreError: where it cannot be reached.
        ConfigError: where its port is taken.
    """
    host, port = launch.address
    wait = datetime.timedelta(seconds=timeout_s)
    if launch.keeps_store:
        try:
            return TCPStore(host, port, is_master=True, wait_for_workers=False, multi_tenant=True, timeout=wait)
        except DistError:
            raise ConfigError(
                f"must be a free port of {launch.host}, got {port}", key="MASTER_PORT", hint="try 29501"
            ) from None
    await_port(launch, timeout_s)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=wait)


def joined_store() -> Store | None:
    """Returns the store of this process and its peers; None before their rendezvous."""
    return _joined.get("store")


def versions() -> dict[str, str | None]:
    """Returns the versions that must be the same in all processes."""
    return {"python": platform.python_version(), **{name: provenance.version(name) for name in PACKAGES}}


def ranges(numbers: Sequence[int]) -> str:
    """Returns numbers as a short text: ``0-3, 5``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(shown[:MAX_NAMED]) + (f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else "")


def await_port(launch: Launch, timeout_s: float) -> None:
    """Waits until the store can be reached.

    Raises:
        NoStoreError: where it cannot be reached in time.
    """
    # A plain socket asks first: the store's own client fills the terminal with C++ frames where nobody listens.
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(launch.address, timeout=GRACE_S):
            return
        if time.monotonic() > deadline:
            host, port = launch.address
            raise NoStoreError(
                f"rank 0 did not join within {timeout_s:g} s: nothing listens at {host}:{port}, where its store is "
                "to be; look at its output, and whether MASTER_ADDR is a host that all nodes reach"
            )
        time.sleep(PAUSE_S)


def _lead(store: Store, launch: Launch, me: Mapping[str, Any], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    number = secrets.token_hex(4)
    members = {0: me}
    store.set(f"{number}/0", json.dumps(me))
    store.set("round", number)
    absent = set(range(1, launch.size))
    while absent and time.monotonic() < deadline:
        for rank in [rank for rank in sorted(absent) if store.check([f"{number}/{rank}"])]:
            members[rank] = json.loads(store.get(f"{number}/{rank}"))
            absent.remove(rank)
        if absent:
            time.sleep(PAUSE_S)
    refusal = _absence(absent, members, launch.size, timeout_s) if absent else _version_conflict(members)
    if refusal is not None:
        # A restarted rank must not register in a round that has failed. The key stays: who has just seen it would wait.
        store.set("round", "")
    verdict = {} if refusal is None else {"kind": type(refusal).__name__, "text": str(refusal)}
    store.set(f"{number}/verdict", json.dumps(verdict))
    return number


def _follow(store: Store, launch: Launch, me: Mapping[str, Any], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s + GRACE_S
    mine = json.dumps({**me, "attempt": secrets.token_hex(4)})
    number = None
    pause = PAUSE_S
    while number is None or not store.check([f"{number}/verdict"]):
        if time.monotonic() > deadline:
            raise RunError(
                f"rank 0 {'did not join' if number is None else 'joined and left'} within the {timeout_s:g} s that all "
                "wait for one another; look at its output"
            )
        if store.check(["round"]):
            latest = store.get("round").decode()
            # Where the same rank has registered already, it was in an earlier attempt: that round is over.
            if latest not in ("", number) and store.compare_set(f"{latest}/{launch.rank}", "", mine).decode() == mine:
                number = latest
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return number


def _absence(absent: set[int], members: Mapping[int, Mapping[str, Any]], size: int, timeout_s: float) -> SciMLError:
    hosts: dict[str, list[int]] = {}
    for rank, member in sorted(members.items()):
        hosts.setdefault(member["host"], []).append(rank)
    joined = [f"{ranges(ranks)} on {host}" for host, ranks in hosts.items()]
    more = f" and {len(joined) - MAX_NAMED} more hosts" if len(joined) > MAX_NAMED else ""
    plural = "s" if len(absent) > 1 else ""
    return RunError(
        f"rank{plural} {ranges(sorted(absent))} of {size} did not join within {timeout_s:g} s; those that joined: "
        f"{'; '.join(joined[:MAX_NAMED])}{more}"
    )


def _version_conflict(members: Mapping[int, Mapping[str, Any]]) -> SciMLError | None:
    first = members[0]
    for rank, member in sorted(members.items()):
        for package, version in first["versions"].items():
            if member["versions"].get(package) != version:
                return ConfigError(
                    f"rank {rank} on {member['host']} runs {package} {member['versions'].get(package)}, rank 0 on "
                    f"{first['host']} runs {version}; start all ranks in the same environment"
                )
    return None
