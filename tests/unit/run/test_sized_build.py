"""A model that a file describes is built no larger than its checkpoint."""

import re

import pytest
import torch
from torch import nn

from sciml.core.errors import ConfigError
from sciml.run.sized_build import sized_build
from sciml.training.checkpoint import CheckpointStore


class Tied(nn.Module):
    def __init__(self, width, depth, table=3):
        super().__init__()
        self.embed = nn.Embedding(5, width)
        self.blocks = nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))
        self.head = nn.Linear(width, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.zeros(table))
        self.register_buffer("constants", torch.zeros(table, table), persistent=False)


@pytest.fixture
def checkpoint(tmp_path):
    state = {f"model.{name}": value for name, value in Tied(4, 2).state_dict().items() if name != "head.weight"}
    return CheckpointStore(tmp_path).save(1, state)


def test_the_model_of_the_checkpoint_is_built(checkpoint):
    model = sized_build(lambda: Tied(4, 2), checkpoint)()
    assert len(model.blocks) == 2


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ((4, 10**9), "model: has far more layers than the checkpoint"),
        ((10**9, 2), "has 'model.table' of shape|has 'model.embed.weight' of shape"),
        ((4, 3), "has no tensor 'model.blocks.2.weight'"),
        ((4, 2, 10**9), "has 'model.table' of shape"),
    ],
)
def test_another_model_is_refused_before_it_takes_memory(sizes, says, checkpoint):
    with pytest.raises(ConfigError) as refused, torch.device("meta"):
        sized_build(lambda: Tied(*sizes), checkpoint)()
    assert re.search(says, str(refused.value))
