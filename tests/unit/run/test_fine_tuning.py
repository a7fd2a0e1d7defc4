"""Trainings that keep parameters, or learn changes of low rank, from their start to an exported model."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file

from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.run.compose import compose
from sciml.run.loaded import load_model
from sciml.testing.sessions import start_session

SMALL = (
    "domain=language", "model=gpt_tiny", "model.depth=1", "model.embed_dim=16", "model.num_heads=2",
    "trainer.max_steps=4", "trainer.save_every=2", "trainer.valid_every=4", "trainer.global_batch_size=2",
    "trainer.valid_samples=2", "trainer.num_threads=1", "optim.warmup_steps=1", "data.context=32",
)  # fmt: skip


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()

    def session(*arguments):
        return start_session(compose("train", [*SMALL, f"runs_dir={runs}", *arguments]))

    yield session
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def source(train):
    session = train("run=source")
    session.fit()
    return session.folder


def weights(session):
    return {name: value.clone() for name, value in session.trainer.engine.weights().items()}


def test_frozen_parameters_stay_and_have_no_optimizer_state(train, source):
    session = train("run=frozen", f"init_from={source.path}", "freeze=[trunk.blocks.*, embed.*]", "trainer.max_steps=2")
    before = weights(session)
    session.fit()
    stays = {name for name in before if name.startswith(("trunk.blocks.", "embed."))}
    after = weights(session)
    assert stays
    assert stays < set(before)
    for name, value in before.items():
        assert torch.equal(after[name], value) is (name in stays), name
    moments = {name.split(".", 1)[1].rpartition(".")[0] for name in session.trainer.engine.tensors.moments()}
    assert moments == set(before) - stays
    resumed = start_session(
        compose("train", [f"resume={session.folder.path}", "trainer.max_steps=4", "optim.decay_steps=3"])
    )
    assert resumed.trainer.step == 2
    resumed.fit()
    assert torch.equal(weights(resumed)["embed.weight"], before["embed.weight"])


def test_changes_of_low_rank_begin_as_the_source_resume_and_are_merged(train, source, tmp_path):
    session = train("run=lora", f"init_from={source.path}", "lora_rank=2", "freeze=[embed.*]")
    words = torch.arange(32)[None] % 256
    first, engine = load_model(source).model, session.trainer.engine
    with torch.no_grad():
        assert torch.equal(engine.model.module.eval()(words), first(words))
    session.fit()
    resumed = start_session(compose("train", [f"resume={session.folder.path}", "trainer.max_steps=4"]))
    for name, value in weights(session).items():
        assert torch.equal(weights(resumed)[name], value)
    tuned = load_model(session.folder, checkpoint="latest").model
    main("export", [f"run={session.folder.path}", "checkpoint=latest", f"out={tmp_path / 'out'}"])
    file = load_file(tmp_path / "out" / "model.safetensors")
    assert not any("lora" in name for name in file)
    plain = load_model(type(session.folder)(tmp_path / "out")).model
    further = train("run=further", f"init_from={session.folder.path}", "lora_rank=3")
    with torch.no_grad():
        expected = tuned(words)
        assert (expected - first(words)).abs().max() > 1e-4
        torch.testing.assert_close(plain(words), expected, rtol=1e-4, atol=1e-5)
        latest = load_model(session.folder).model(words)
        torch.testing.assert_close(further.trainer.engine.model.module.eval()(words), latest, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"lora_rank: .* was begun with 2 and cannot resume with 3"):
        start_session(compose("train", [f"resume={session.folder.path}", "lora_rank=3"]))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("freeze=[trunk.block.*]",), "freeze: 'trunk.block.*' fits no parameter; did you mean 'trunk.blocks'"),
        (("freeze=['*']",), "freeze: nothing is left to train"),
        (("lora_rank=100",), "lora_rank: a change of rank 100 is no smaller"),
        (("lora_rank=-1",), "lora_rank must be at least 0"),
        (("lora_rank=2", "engine=deepspeed"), "lora_rank: DeepSpeed's engine trains all parameters; engine=native"),
    ],
)
def test_what_cannot_work_is_one_sentence(train, keys, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        train("run=bad", *keys)
