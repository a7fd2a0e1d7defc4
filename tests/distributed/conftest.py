"""One group of processes of each size for all tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sciml.testing.ranks import PRELOADED, Ranks
from sciml.testing.ranks import ranks as ranks_of

PRELOADED.append("tests.distributed.cases")  # else each process of each group imports it


@pytest.fixture(scope="session")
def ranks() -> Callable[[int], Ranks]:
    """From a size to the group of that size."""
    return ranks_of
