from collections import Counter

import numpy as np
import pytest
import torch

from sciml.data.loader import ShuffledStream, evaluation_batches, training_batches


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
    return list(training_batches(Numbers(13), ShuffledStream(13, 4, seed=1), **{**defaults, **options}))


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
    stream = ShuffledStream(50, 42, seed=3)
    pieces = [stream.draws(2, rank, size) for rank in range(size)]
    assert [draw for piece in pieces for draw in piece] == stream.draws(2)


def test_torch_and_numpy_seeds_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    take()
    assert (torch.rand(1), np.random.rand()) == before
