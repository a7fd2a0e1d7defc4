"""Sharing things of different cost into parts that cost nearly alike."""

from __future__ import annotations

import heapq

import numpy as np


def balanced_parts(costs: np.ndarray, num_parts: int) -> list[list[int]]:
    """Shares numbered things into parts of nearly equal cost; none of the parts is empty.

    The most expensive thing goes to the part that is cheapest so far, then the next. The dearest part costs at most
    4/3 of the least that is possible. Source: Graham (1969), https://doi.org/10.1137/0117039.

    Args:
        costs: (n,), positive; at least as many as parts.

    Returns:
        the numbers in each part, increasing. The same costs always give the same parts.
    """
    parts: list[list[int]] = [[] for _ in range(num_parts)]
    # the number of things breaks ties, so that a part without any comes first even where things cost nothing
    loads = [(0.0, 0, part) for part in range(num_parts)]
    for thing in np.argsort(-np.asarray(costs, dtype=np.float64), kind="stable").tolist():
        load, size, part = heapq.heappop(loads)
        parts[part].append(thing)
        heapq.heappush(loads, (load + float(costs[thing]), size + 1, part))
    return [sorted(part) for part in parts]
