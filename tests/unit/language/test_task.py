"""What a language model is told, how it is scored, and what it writes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from domains.language.batch import TextBatch
from domains.language.schema import LanguageSchema, LanguageStatistics
from domains.language.task import BIGRAM, UNIGRAM, LanguageTask, LanguageTaskConfig
from domains.language.writing import write
from sciml.core.config import build
from sciml.core.errors import ConfigError


class Counting(nn.Module):
    """Knows that every byte is followed by the next one, and remembers how much it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, tokens, targets=None):
        self.seen.append(tokens.shape[1])
        logits = 20.0 * nn.functional.one_hot((tokens + 1) % 256, 256)
        if targets is None:
            return logits
        return nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")


class Uniform(nn.Module):
    """Knows nothing."""

    def forward(self, tokens, targets=None):
        return torch.full(tokens.shape, math.log(256.0))


@pytest.fixture
def task():
    pairs = torch.zeros(256, 256, dtype=torch.int64)
    pairs[range(255), range(1, 256)] = 1
    return LanguageTask(LanguageSchema(8), LanguageStatistics(pairs), LanguageTaskConfig())


BATCH = TextBatch(torch.arange(24).view(3, 8), torch.arange(1, 25).view(3, 8))


def scores(task, *predictions):
    metrics = task.metrics()
    for prediction in predictions:
        metrics.update(prediction, BATCH)
    return {score.metric.name: score.value for score in metrics.compute()}


def test_a_model_that_knows_nothing_needs_eight_bits_a_byte(task):
    output = task.loss(Uniform(), BATCH)
    assert output.loss.item() == pytest.approx(math.log(256))
    assert output.parts["bits_per_byte"].item() == pytest.approx(8)
    assert output.weight == 3
    assert scores(task, task.predict(Uniform(), BATCH)) == pytest.approx({"bits_per_byte": 8, "perplexity": 256})


def test_scores_are_means_over_all_bytes(task):
    found = scores(task, task.predict(Uniform(), BATCH), task.predict(Counting(), BATCH))
    assert found == pytest.approx({"bits_per_byte": 4, "perplexity": 16}, abs=1e-3)
    assert task.metrics().compute() == []


def test_baselines_say_what_the_training_text_says(task):
    baselines = task.baselines()
    assert scores(task, baselines[UNIGRAM](BATCH))["bits_per_byte"] == pytest.approx(8, abs=0.02)
    assert scores(task, baselines[BIGRAM](BATCH))["bits_per_byte"] == pytest.approx(1, abs=0.02)


def test_nothing_follows_the_text_itself(task):
    assert task.advance(BATCH, task.predict(Uniform(), BATCH)) is None


def test_writing_goes_on_behind_the_beginning_and_sees_the_context():
    model = Counting()
    written = write(model, torch.tensor([3, 4, 5]), 6, context=5, temperature=1.0)
    assert written.tolist() == [6, 7, 8, 9, 10, 11]
    assert model.seen == [3, 4, 5, 5, 5, 5]


def test_writing_is_drawn_from_a_seed():
    class Free(nn.Module):
        def forward(self, tokens):
            return torch.zeros(*tokens.shape, 256)

    one, same, other = (
        write(Free(), torch.tensor([0]), 20, context=8, temperature=1.0, seed=seed).tolist() for seed in (0, 0, 1)
    )
    assert one == same != other


@pytest.mark.parametrize("changes", [{"write_bytes": -1}, {"temperature": 0.0}])
def test_nonsense_is_refused(changes):
    with pytest.raises(ConfigError, match=f"task.{next(iter(changes))} must be "):
        build(LanguageTaskConfig, changes, prefix="task")
