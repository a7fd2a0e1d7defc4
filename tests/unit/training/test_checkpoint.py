import errno
import json

import pytest
import torch

from sciml.core.errors import ConfigError, DataError, RunError
from sciml.training import checkpoint
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors


def tensors(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return {
        "model.weight": scale * torch.randn(4, 3, generator=generator),
        "model.half": torch.randn(5, generator=generator).bfloat16(),
        "optim.weight.step": torch.tensor(7.0),
        "model.count": torch.tensor([1, 2, 3]),
    }


def test_what_is_read_is_what_was_written_to_the_bit(tmp_path):
    path = CheckpointStore(tmp_path).save(7, tensors())
    assert read_manifest(path)["step"] == 7
    found = read_tensors(path, tensors(0.0))
    assert all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in tensors().items()
    )


def test_there_is_no_pickle_in_a_checkpoint(tmp_path):
    path = CheckpointStore(tmp_path).save(1, tensors())
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_the_last_ones_and_the_best_are_kept(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2)
    for step in range(1, 6):
        store.save(step, tensors())
        if step == 2:
            store.mark_best(2, 0.1)
    assert store.steps() == [2, 4, 5]
    assert store.best() == store.path(2)
    assert store.best_loss() == 0.1
    assert store.latest() == store.path(5)


def test_a_changed_file_is_named(tmp_path):
    path = CheckpointStore(tmp_path).save(1, tensors())
    file = next(path.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{file.name} is missing or corrupted; use an earlier checkpoint"):
        read_manifest(path)


def test_a_truncated_file_is_named(tmp_path):
    path = CheckpointStore(tmp_path).save(1, tensors())
    file = next(path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match=file.name):
        read_tensors(path, tensors())


def test_a_broken_manifest_and_a_foreign_folder_are_named(tmp_path):
    path = CheckpointStore(tmp_path).save(1, tensors())
    (path / "checkpoint.json").write_text("{")
    with pytest.raises(DataError, match="is corrupted"):
        read_manifest(path)
    with pytest.raises(DataError, match="is no checkpoint"):
        read_manifest(tmp_path)


def test_another_shape_and_a_missing_tensor_are_refused_by_name(tmp_path):
    path = CheckpointStore(tmp_path).save(1, tensors())
    with pytest.raises(ConfigError, match=r"'model.weight' of shape \(4, 3\), the model \(4, 4\).*init_from"):
        read_tensors(path, {"model.weight": torch.zeros(4, 4)})
    with pytest.raises(ConfigError, match=r"no tensor 'model.bias'"):
        read_tensors(path, {"model.bias": torch.zeros(4)})


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(1, tensors())

    def full(folder, values):
        (folder / "shard.safetensors").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(RunError, match="the disk is full"):
        store.save(2, tensors())
    assert store.steps() == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001"]
    assert json.loads((store.path(1) / "checkpoint.json").read_text())["step"] == 1
