from types import SimpleNamespace

import pytest

from sciml.core.errors import ConfigError, DataError, RunError
from sciml.distributed.mesh import Mesh
from sciml.training.config import OptimConfig, TrainerConfig
from sciml.training.step_math import NotFiniteError
from sciml.training.trainer import Trainer


def failing(error):
    """A trainer whose engine fails in its first step."""

    class Engine:
        mesh = Mesh.alone()

        def launch_step(self, task, batches, lr):
            raise error

        def weights(self):
            return {}

    checkpoints = SimpleNamespace(finish=lambda: None, latest=lambda: None)
    splits = SimpleNamespace(train=[0] * 16, valid=[])
    options = {"seed": 0, "mesh": Engine.mesh, "engine": Engine(), "task": None, "splits": splits}
    return Trainer(TrainerConfig(), OptimConfig(), **options, checkpoints=checkpoints)


@pytest.mark.parametrize(
    ("error", "advises"),
    [
        (NotFiniteError("the loss is not finite"), True),
        (RunError("lost contact with another process"), False),
        (ConfigError("micro-batches of different shapes", key="parallel.pp"), False),
    ],
)
def test_a_smaller_learning_rate_is_advised_only_where_the_training_diverged(error, advises):
    trainer = failing(error)
    with pytest.raises(type(error), match="step 1: ") as caught:
        trainer._launch(iter([SimpleNamespace(to=lambda device: None)]), 1)
    assert ("try a smaller optim.lr" in str(caught.value)) is advises
    assert "no checkpoint had been saved yet" in str(caught.value)


def test_a_loader_that_was_killed_is_named_with_the_last_checkpoint():
    def batches():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore")
        yield

    trainer = failing(None)
    trainer.checkpoints.latest = lambda: "step-00000004"
    with pytest.raises(RunError, match=r"step 1: DataLoader worker \(pid 7\) is killed .* checkpoint is step-00000004"):
        trainer._launch(batches(), 1)


def test_data_that_end_in_a_sentence_are_told_with_the_last_checkpoint():
    def batches():
        raise DataError("a.nc is damaged")
        yield

    with pytest.raises(DataError, match=r"step 1: a\.nc is damaged; no checkpoint had been saved yet"):
        failing(None)._launch(batches(), 1)


def test_nothing_is_told_of_a_validation_without_samples():
    class Log:
        def on_validation(self, step, record):
            raise AssertionError(record)

    trainer = failing(None)
    trainer.checkpoints.best_loss = lambda: None
    trainer._validate([Log()], saved=True)
