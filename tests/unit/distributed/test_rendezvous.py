"""How processes find one another, over a store of this process."""

import json
import threading

import pytest
from torch.distributed import PrefixStore, TCPStore

from sciml.core.errors import ConfigError, RunError
from sciml.distributed import rendezvous
from sciml.distributed.launcher import Launch
from sciml.distributed.rendezvous import NoStoreError, open_store, ranges


@pytest.fixture
def address(monkeypatch):
    """A store that a launcher keeps, as torchrun does; what a rendezvous leaves behind is forgotten."""
    monkeypatch.setattr(rendezvous, "_joined", {})
    monkeypatch.setattr(rendezvous, "GRACE_S", 0.5)
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return "127.0.0.1", server.port, server


def gather(address, ranks, size, timeout_s=20.0):
    """Lets ranks join, each in a thread; their stores or errors by rank."""
    joined = {}

    def join(rank):
        try:
            joined[rank] = rendezvous.rendezvous(Launch(rank, size, rank, address[:2], agent=True), timeout_s)
        except Exception as error:
            joined[rank] = error

    threads = [threading.Thread(target=join, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return joined


def test_processes_that_join_have_a_store_of_their_own(address):
    joined = gather(address, range(3), 3)
    assert all(isinstance(store, PrefixStore) for store in joined.values())
    joined[0].set("word", "for all")
    assert joined[2].get("word") == b"for all"


def test_a_later_attempt_is_not_taken_in_by_what_an_earlier_one_left(address):
    first = gather(address, range(2), 2)
    first[0].set("address", "of the dead")
    second = gather(address, range(2), 2)
    assert not second[1].check(["address"])
    assert first[0].underlying_store.get("round") == second[0].underlying_store.get("round") != b""


def test_a_later_attempt_succeeds_where_the_earlier_missed_a_rank(address):
    assert isinstance(gather(address, [0, 2], 3, timeout_s=1.0)[2], RunError)
    assert all(isinstance(store, PrefixStore) for store in gather(address, range(3), 3).values())


def test_a_later_attempt_waits_for_its_own_first_rank(address):
    gather(address, range(2), 2)
    (error,) = gather(address, [1], 2, timeout_s=1.0).values()
    assert str(error) == "rank 0 did not join within the 1 s that all wait for one another; look at its output"


def test_missing_ranks_are_named_to_all(address):
    joined = gather(address, [0, 3, 4], 6, timeout_s=1.0)
    assert len({str(error) for error in joined.values()}) == 1
    assert str(joined[3]).startswith("ranks 1-2, 5 of 6 did not join within 1 s; those that joined: 0, 3-4 on ")


def test_another_version_is_named_to_all(address, monkeypatch):
    answers = iter([{"torch": "1.0"}, {"torch": "2.0"}])
    monkeypatch.setattr(rendezvous, "versions", lambda: next(answers))
    joined = gather(address, [0, 1], 2)
    assert all(isinstance(error, ConfigError) for error in joined.values())
    assert len({str(error) for error in joined.values()}) == 1
    assert "torch" in str(joined[0])


def test_all_that_must_agree_is_asked():
    assert {"python", "sciml", "torch", "deepspeed"} <= rendezvous.versions().keys()
    assert json.dumps(rendezvous.versions())


def test_nobody_at_the_place_to_meet_is_said():
    with pytest.raises(NoStoreError, match=r"rank 0 did not join within 0.2 s: nothing listens at 127.0.0.1:1, "):
        open_store(Launch(1, 2, 0, ("127.0.0.1", 1)), 0.2)


def test_a_port_that_is_taken_is_said(address):
    host, port, _ = address
    with pytest.raises(ConfigError, match=f"MASTER_PORT must be a free port of .*, got {port}; try 29501"):
        open_store(Launch(0, 2, 0, (host, port)), 0.2)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([3], "3"), ([2, 0, 1], "0-2"), ([0, 1, 5], "0-1, 5"), (range(0, 20, 2), "0, 2, 4, 6 and 6 more")],
)
def test_ranges_are_short(numbers, text):
    assert ranges(numbers) == text
