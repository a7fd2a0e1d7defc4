"""One group of processes of each size for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.distributed.ranks import Ranks


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Ranks]]:
    """From a size to the group of that size."""
    groups: dict[int, Ranks] = {}

    def of_size(size: int) -> Ranks:
        if size not in groups or not all(process.is_alive() for process in groups[size].processes):
            groups[size] = Ranks(size, tmp_path_factory.mktemp(f"ranks-{size}"))
        return groups[size]

    yield of_size
    for group in groups.values():
        group.close()
