"""The language domain, small, through the suite that every domain inherits; and what only language promises."""

from __future__ import annotations

import json

import numpy as np
import pytest

import sciml
from sciml.app.cli import main
from sciml.core.errors import ConfigError
from sciml.testing.conformance import DomainConformance

SMALL = (
    "domain=language", "model.embed_dim=24", "model.depth=2", "model.num_heads=2", "model.context=32",
    "task.write_bytes=20", "data.splits={train: 20, valid: 0.3, test: 0.3}",
)  # fmt: skip


class TestLanguage(DomainConformance):
    # Adam makes steps of one size, of small gradients too: those of queries and keys are 1e-5 of others at first, and
    # much of that is rounding. Larger steps would differ by more than two processes may.
    overrides = (*SMALL, "optim.lr=2e-3")
    falling = ("trainer.max_steps=60", "optim.lr=1e-2", "trainer.global_batch_size=8", "optim.ema_decay=0.9")
    meshes = ("parallel.tp=2", "parallel.pp=2 trainer.micro_batch_size=2")

    def test_python_writes_on(self, commanded):
        model = sciml.load("latest", runs_dir=str(commanded))
        written = model.write("Call me", 20)
        assert 5 <= len(written) <= 20  # bytes that are no text together are one mark
        assert written == model.write("Call me", 20)
        with pytest.raises(ConfigError, match="beginning must have"):
            model.write("")


@pytest.mark.usefixtures("no_reports")
def test_a_trained_model_scores_other_text(tmp_path, capsys):
    arguments = [f"runs_dir={tmp_path}", "output=json"]
    main("train", [*SMALL, *arguments, "trainer.max_steps=60", "trainer.num_threads=1"])
    own = json.loads(capsys.readouterr().out)["scores"]
    other = tmp_path / "other.txt"
    other.write_bytes(np.random.default_rng(0).integers(256, size=4000, dtype=np.uint8).tobytes())
    changes = [f"data.path={other}", "data.splits={train: 0, valid: 0, test: 1}"]
    main("evaluate", [*arguments, *changes])
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores[0]["value"] > own[0]["value"] + 0.5
    assert scores[0]["baseline"]["bigram"] > 8
    main("evaluate", [*arguments, *changes, "data.context=48"])  # rotations serve longer windows
    assert len(json.loads(capsys.readouterr().out)["scores"]) == 2
