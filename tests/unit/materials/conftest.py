"""A few small alloys, and small runs on them."""

import pytest
import torch

from domains.materials.simulation.simulate import simulate
from domains.materials.simulation.simulate_config import SimulateConfig
from sciml.app.cli import main
from sciml.core.config import build
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from tests.reports import without_reports


@pytest.fixture(scope="session")
def small_alloys(tmp_path_factory):
    """A file of 60 copper-nickel structures with EAM's labels."""
    path = tmp_path_factory.mktemp("small") / "alloys.extxyz"
    values = {"out": str(path), "families": ["fcc:CuNi"], "count": 60, "orders": [1, 2], "supercells": [[2, 1, 1]]}
    simulate(build(SimulateConfig, values))
    return path


@pytest.fixture(scope="session")
def small_overrides(small_alloys):
    """What makes a training of them small, on the command line."""
    return (
        "domain=materials", "model.num_channels=8", "model.num_layers=2", "model.cutoff=4", "data.cutoff=4",
        f"data.path={small_alloys}", f"data.cache={small_alloys.parent / 'cache'}", "trainer.max_steps=20",
        "trainer.valid_every=20", "trainer.save_every=20", "trainer.num_threads=1", "optim.warmup_steps=2",
    )  # fmt: skip


@pytest.fixture(scope="session")
def small_values(small_overrides, tmp_path_factory):
    """The composed command line of a small training, with more overrides."""

    def composed(*more):
        folder = tmp_path_factory.mktemp("runs")
        return compose("train", [*small_overrides, f"runs_dir={folder}", *more])

    return composed


@pytest.fixture(scope="session")
def small_run(small_overrides, tmp_path_factory):
    """The folder of a small run, trained and scored once for each choice of overrides."""
    made = {}
    threads = torch.get_num_threads()

    def run(*more):
        if more not in made:
            runs = tmp_path_factory.mktemp("runs")
            with without_reports():
                main("train", [*small_overrides, f"runs_dir={runs}", *more, "output=json"])
            made[more] = RunFolder.find("latest", str(runs))
        return made[more]

    yield run
    torch.set_num_threads(threads)
