from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sciml.data.balance import balanced_parts
from sciml.data.batch_tensors import Pinnable
from sciml.data.loader import SeededDataset, ShuffledSampler, evaluation_batches, training_batches


class Numbers:
    """Samples are (index, a random number drawn for it)."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def sample(self, index, generator):
        return index, generator.random()

    def collate(self, samples):
        return samples


def take(**options):
    defaults = {"start_step": 0, "stop_step": 8, "micro_batch_size": 2}
    return list(training_batches(Numbers(13), ShuffledSampler(13, 4, seed=1), **{**defaults, **options}))


def test_every_sample_comes_once_an_epoch_and_none_is_dropped():
    indices = [index for batch in take(stop_step=13) for index, _ in batch]
    assert len(indices) == 4 * 13
    for epoch in range(4):
        assert sorted(indices[13 * epoch : 13 * (epoch + 1)]) == list(range(13))
    assert indices[:13] != indices[13:26]


def test_ranks_share_each_global_batch_without_overlap():
    whole = [sample for batch in take(micro_batch_size=4) for sample in batch]
    ranks = [take(rank=rank, num_ranks=2) for rank in range(2)]
    shared = [sample for step in zip(*ranks, strict=True) for batch in step for sample in batch]
    assert shared == whole


def test_a_resumed_stream_goes_on_with_the_same_samples_and_the_same_randomness():
    assert take(start_step=5) == take()[2 * 5 :]


def test_workers_change_nothing():
    assert take(num_workers=2) == take()


def test_evaluation_meets_each_sample_once_over_all_ranks():
    seen = Counter()
    for rank in range(3):
        for batch in evaluation_batches(Numbers(13), batch_size=2, seed=0, rank=rank, num_ranks=3):
            seen.update(index for index, _ in batch)
    assert seen == Counter(range(13))


def test_a_limited_evaluation_spreads_over_the_source():
    batches = evaluation_batches(Numbers(100), batch_size=8, seed=0, limit=5)
    assert [index for batch in batches for index, _ in batch] == [0, 25, 50, 74, 99]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_stream_does_not_depend_on_the_number_of_ranks(size):
    stream = ShuffledSampler(50, 42, seed=3)
    pieces = [stream.draws(2, rank, size) for rank in range(size)]
    assert [draw for piece in pieces for draw in piece] == stream.draws(2)


class Sized(Numbers):
    """Samples whose cost is known: some are ten times as large as others."""

    def costs(self):
        return np.where(np.arange(self.count) % 5 == 0, 10.0, 1.0) + 0.01 * np.arange(self.count)


def sized(num_ranks=1, num_workers=0, start_step=0, micro_batch_size=2):
    """Micro-batches by rank and step."""
    stream = ShuffledSampler(23, 12, seed=1)
    options = {"start_step": start_step, "stop_step": 6, "micro_batch_size": micro_batch_size}
    num_micro = 12 // num_ranks // micro_batch_size
    ranks = []
    for rank in range(num_ranks):
        parallel = {"rank": rank, "num_ranks": num_ranks, "num_workers": num_workers}
        batches = list(training_batches(Sized(23), stream, **options, **parallel))
        ranks.append([batches[first : first + num_micro] for first in range(0, len(batches), num_micro)])
    return ranks


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 6])
def test_costed_micro_batches_share_the_same_global_batch(num_ranks):
    stream, ranks = ShuffledSampler(23, 12, seed=1), sized(num_ranks)
    for step in range(6):
        parts = [batch for rank in ranks for batch in rank[step]]
        assert len(parts) == 6
        assert all(parts)
        found = sorted(index for batch in parts for index, _ in batch)
        assert found == sorted(draw.index for draw in stream.draws(step))


def test_costed_micro_batches_cost_nearly_alike():
    costs = Sized(23).costs()
    stream = ShuffledSampler(23, 12, seed=1)
    for step in range(6):
        loads = [sum(costs[index] for index, _ in batch) for rank in sized(3) for batch in rank[step]]
        drawn = costs[[draw.index for draw in stream.draws(step)]]
        least = max(drawn.max(), drawn.sum() / 6)
        assert max(loads) <= 4 / 3 * least
        plain = [sum(drawn[first : first + 2]) for first in range(0, 12, 2)]
        assert max(loads) <= max(plain)


def test_costed_batches_resume_and_do_not_depend_on_workers():
    assert [rank[3:] for rank in sized(2)] == sized(2, start_step=3)
    assert sized(2, num_workers=2) == sized(2)


def test_samples_that_cost_the_same_fill_micro_batches_evenly():
    assert [len(part) for part in balanced_parts(np.ones(12), 4)] == [3] * 4
    assert [len(part) for part in balanced_parts(np.zeros(12), 4)] == [3] * 4
    assert sorted(thing for part in balanced_parts(np.arange(7.0), 3) for thing in part) == list(range(7))


def test_torch_and_numpy_seeds_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    take()
    assert (torch.rand(1), np.random.rand()) == before


def test_samples_of_a_batch_are_read_together_where_the_source_can():
    class Together:
        calls = 0

        def __len__(self):
            return 8

        def sample(self, index, generator):
            return self.samples([index], [generator])[0]

        def samples(self, indices, generators):
            self.calls += 1
            return [(index, generator.integers(1000)) for index, generator in zip(indices, generators, strict=True)]

        @staticmethod
        def collate(samples):
            return samples

    source = Together()
    stream = ShuffledSampler(8, 4, seed=1)
    (batch,) = training_batches(source, stream, start_step=0, stop_step=1, micro_batch_size=4)
    assert source.calls == 1
    alone = SeededDataset(source, 1)
    assert batch == [alone[draw] for draw in stream.draws(0)]


def test_batches_of_any_records_can_be_pinned(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(tensor) or tensor + 1)

    @dataclass(frozen=True)
    class Record:
        x: torch.Tensor
        named: dict
        text: str = "unchanged"

    batch = Record(torch.zeros(2), {"y": torch.zeros(3)})
    found = Pinnable(batch).pin_memory()
    assert (len(pinned), found.text) == (2, "unchanged")
    assert found.x.sum() + found.named["y"].sum() == 5
