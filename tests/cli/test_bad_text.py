"""Text that cannot be used ends in one sentence and exit code 2, before a run is begun."""

import pytest

SMALL = (
    "domain=language", "model.embed_dim=16", "model.depth=1", "model.num_heads=1", "model.context=16",
    "trainer.max_steps=2", "trainer.num_threads=1",
)  # fmt: skip


def test_a_missing_file(refused, tmp_path):
    assert "nowhere.txt does not exist; name a text file" in refused(
        "train", *SMALL, f"data.path={tmp_path}/nowhere.txt"
    )


def test_an_empty_file(refused, tmp_path):
    (tmp_path / "empty.txt").touch()
    assert "empty.txt is empty" in refused("train", *SMALL, f"data.path={tmp_path}/empty.txt")


def test_a_file_too_short_for_a_window(refused, tmp_path):
    (tmp_path / "short.txt").write_text("too short " * 10)
    said = refused("train", *SMALL, f"data.path={tmp_path}/short.txt")
    assert "short.txt: its part for valid has 5 bytes, 17 are needed for a window" in said


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["model.positions=learned", "data.context=17"], "data.context: 17 bytes are more than the 16 positions"),
        (["data.context=0"], "data.context must be at least 1, got 0"),
        (["model=plain_vit_tiny"], "model: plain_vit_tiny is for domain=climate, not for domain=language"),
        (["model.vocabulary_size=100"], "model.vocabulary_size: 100 words are fewer than the 256 bytes"),
        (["engine=deepspeed", "parallel.pp=2"], "model.tied_embedding: DeepSpeed's pipeline does not add"),
        (["data.splits.test=-1"], "data.splits.test must be at least 0, got -1; try data.splits.test=0.05"),
        (["data.path=[]"], "data.path: no text is named"),
    ],
)
def test_configurations_that_cannot_work(refused, wrong, message):
    assert message in refused("train", *SMALL, *wrong)
