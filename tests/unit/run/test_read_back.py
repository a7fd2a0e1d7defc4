"""Whatever a command reads back of a run, a study or a store is checked; a wrong file is named in one sentence."""

from types import SimpleNamespace

import pytest
import torch

from domains.climate.data.store import ClimateStore
from domains.materials.data.store import MaterialsStore
from sciml.core.errors import DataError
from sciml.report.run_report import draw_report
from sciml.run.folder import RunFolder
from sciml.run.loaded import read_fitted
from sciml.training.callbacks import MetricsLog
from sciml.training.checkpoint import CheckpointStore, read_manifest
from sciml.tuning.space import Choices
from sciml.tuning.study import open_folder


def report(folder):
    (folder / "example.safetensors").touch()
    (folder / "schema.json").write_text("{}")
    (folder / "run.json").write_text(
        '{"domain": "toy", "config": {"domain": {"_target_": "domains.climate.domain.ClimateDomain"}}}'
    )
    draw_report(RunFolder(folder), None)


def study(folder):
    (folder / "choices.json").write_text("[]")
    open_folder(folder, {}, lambda: Choices([]))


READERS = {
    "a run": ("run.json", '{"domain": "toy"}', "config is missing", lambda p: RunFolder(p).record),
    "scores": ("scores.json", '[{"metric": "mae"}]', "0.variable is missing", lambda p: RunFolder(p).scores()),
    "a history": ("metrics.jsonl", '{"step": "a"}\n', "step must be a whole number", lambda p: RunFolder(p).history()),
    "a log that goes on": (
        "metrics.jsonl", "{}\n", "step is missing", lambda p: MetricsLog(p / "metrics.jsonl", every=1)
    ),
    "a schema": ("schema.json", "[]", "it must be a group of keys", lambda p: read_fitted(RunFolder(p), None)),
    "scores of a report": ("scores.json", "{}", "it must be a list", report),
    "a checkpoint": ("checkpoint.json", '{"step": 1, "files": []}', "files must be a group", read_manifest),
    "choices": ("choices.json", '[{"axes": {}}]', "0.keys is missing", lambda p: Choices.read(p / "choices.json")),
    "a study": ("settings.json", "{}", "config is missing", study),
    "a climate store": (
        ".zattrs", '{"format": "sciml-climate-store"}', "version is missing", ClimateStore.open
    ),
    "a materials store's groups": (
        "groups.json", '["a", 1]', "1 must be text", lambda p: MaterialsStore.groups.func(SimpleNamespace(path=p))
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_a_file_of_another_form_is_named(kind, tmp_path):
    name, text, says, read = READERS[kind]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as refused:
        read(tmp_path)
    assert name in str(refused.value)
    assert f"is corrupted: {says}" in str(refused.value)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "a climate store"])  # is then no store
def test_a_broken_file_is_named(kind, tmp_path):
    name, _, _, read = READERS[kind]
    (tmp_path / name).write_text('{"half\n')
    with pytest.raises(DataError, match="is corrupted: it is no JSON") as refused:
        read(tmp_path)
    assert name in str(refused.value)


@pytest.mark.parametrize("text", ['{"step": 1}', '{"half', "[]", '{"step": 2, "loss": NaN}', '{"step": -2, "loss": 1}'])
def test_a_broken_note_of_the_best_checkpoint_is_as_none(text, tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(step, {"a": torch.zeros(1)})
    store.mark_best(1, 0.5)
    assert CheckpointStore(tmp_path).best() == store.path(1)
    (tmp_path / "best.json").write_text(text)
    assert CheckpointStore(tmp_path).best() == store.path(2)
    assert CheckpointStore(tmp_path).best_loss() is None


@pytest.mark.parametrize("name", ["step-abc", "step-", "step-1", "step-00000003x", "step--0000001", "step-\u0661"])
def test_a_stray_folder_is_no_checkpoint(name, tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(2, {"a": torch.zeros(1)})
    (tmp_path / name).mkdir()
    (tmp_path / name / "checkpoint.json").write_text("{}")
    assert store.steps() == [2]
    assert store.newest_intact() == store.path(2)
