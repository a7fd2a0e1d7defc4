"""One model for several kinds of physics, taken to one more that it has not seen."""

from __future__ import annotations

import pytest
import torch

from domains.fluids.solver.simulate import simulate
from domains.fluids.solver.simulate_config import SimulateConfig
from sciml.core.config import build
from sciml.run.compose import compose
from sciml.run.loaded import load_run
from sciml.testing.sessions import start_session

TINY = (
    "model.embed_dim=16", "model.depth=1", "model.num_heads=2", "model.conv_width=8", "model.modes=[2,2]",
    "trainer.max_steps=2", "trainer.valid_every=2", "trainer.save_every=2", "trainer.global_batch_size=4",
    "trainer.num_threads=1", "trainer.device=cpu", "task.score_frames=[1]", "optim.warmup_steps=1",
)  # fmt: skip
SPLITS = "data.splits={train: 1, valid: 1, test: 1}"


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()

    def session(*arguments):
        return start_session(compose("train", [*arguments, *TINY, SPLITS, f"runs_dir={runs}"]))

    yield session
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def flows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flows")

    def file(kind: str) -> str:
        values = {"out": str(folder / f"{kind}.nc"), "physics": kind, "count": 3, "nx": 16, "nz": 8, "frames": 4}
        return str(simulate(build(SimulateConfig, {**values, "device": "cpu"})))

    return file


def weights(session) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in session.trainer.engine.weights().items()}


def test_a_model_of_several_kinds_is_taken_to_one_that_it_has_not_seen(train, flows):
    kinds = {"weather": "miniweather", "burgers": "burgers", "advection": "advection", "vortices": "vortices"}
    paths = ", ".join(f"{name}: {flows(kind)}" for name, kind in kinds.items())
    source = train("experiment=flow_foundation", f"data.path={{{paths}}}", "run=source")
    assert set(source.trainer.task.schema.data_sets) == set(kinds)
    source.fit()
    known = load_run(source.folder).model
    tuned = train("experiment=flow_finetune", f"data.path={flows('shallow_water')}", f"init_from={source.folder.path}")
    mine, theirs = weights(tuned), dict(known.named_parameters())
    rows = tuned.spec.build_model(tuned.trainer.task.schema).variable_rows()
    assert set(rows["net.head.weight"]) == {"height", "uwnd", "wwnd", "coriolis"}
    for name, value in mine.items():
        if name not in rows:
            assert torch.equal(value, theirs[name]), name
    head, older = rows["net.head.weight"], known.variable_rows()["net.head.weight"]
    blocks = mine["net.head.weight"].unflatten(0, (len(head), -1))
    older_blocks = theirs["net.head.weight"].unflatten(0, (len(older), -1))
    assert torch.equal(blocks[head.index("uwnd")], older_blocks[older.index("uwnd")])
    assert blocks[head.index("uwnd")].any()
    assert not blocks[head.index("height")].any()  # persistence, until it has learned
    tuned.fit()
    assert all(torch.isfinite(value).all() for value in weights(tuned).values())
