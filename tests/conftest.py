"""What holds for all tests and the processes they start."""

import os

import pytest

# torch looks up the host name behind each connection to its store. Where no name server answers, that takes 10 s,
# while other processes give up: tests ask none, names come from /etc/hosts.
os.environ.setdefault("RES_OPTIONS", "attempts:0")
# Set before torch is imported, and inherited by all processes that tests start: what tests compute is too small to be
# shared among threads, which would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Which tests run one after the other: those of a file, and all that fill the machine with processes."""
    for item in items:
        folder, file = item.path.parent.name, item.path.stem
        item.add_marker(pytest.mark.xdist_group(folder if folder == "distributed" else file))
