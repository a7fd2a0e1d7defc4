import errno
import hashlib
import json
import os
import pickle
import threading

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from sciml.core.errors import ConfigError, DataError, RunError
from sciml.core.files import sha256
from sciml.training import checkpoint_storage
from sciml.training.checkpoint import CheckpointStore, read_manifest, read_tensors
from sciml.training.checkpoint_layout import MANIFEST
from sciml.training.checkpoint_storage import stored_pieces


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


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch, asynchronous):
    store = CheckpointStore(tmp_path, asynchronous=asynchronous)
    store.save(1, tensors())
    store.finish()

    def full(file, *args):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_storage, "write_safetensors", full)
    with pytest.raises(RunError, match="the disk is full"):  # noqa: PT012
        store.save(2, tensors())
        store.mark_best(2, 0.1)
        store.finish()
    assert store.steps() == [1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001"]
    assert json.loads((store.path(1) / "checkpoint.json").read_text())["step"] == 1
    monkeypatch.undo()
    store.save(2, tensors())
    store.finish()
    assert store.steps() == [1, 2]


def test_what_changes_after_save_returned_is_not_written(tmp_path):
    store = CheckpointStore(tmp_path, asynchronous=True)
    for step in (1, 2, 3):
        changing = tensors(step)
        store.save(step, changing)
        for value in changing.values():
            value.fill_(0)
    store.finish()
    for step in (2, 3):
        found = read_tensors(store.path(step), tensors())
        assert all(torch.equal(found[name], value) for name, value in tensors(step).items())


def test_a_checkpoint_is_the_best_as_soon_as_it_is_written(tmp_path, monkeypatch):
    go_on, write = threading.Event(), checkpoint_storage.write_safetensors

    def waits(*args):
        assert go_on.wait(60)
        return write(*args)

    store = CheckpointStore(tmp_path, keep_last=1, asynchronous=True)
    store.save(1, tensors())
    store.finish()
    monkeypatch.setattr(checkpoint_storage, "write_safetensors", waits)
    store.save(2, tensors())
    store.mark_best(2, 0.5)
    assert (store.best_loss(), store.best(), store.latest()) == (0.5, store.path(1), store.path(1))
    go_on.set()
    store.save(3, tensors())
    store.finish()
    assert CheckpointStore(tmp_path).best_loss() == 0.5
    assert store.best() == store.path(2)
    assert store.steps() == [2, 3]


def test_what_a_killed_process_left_is_no_checkpoint_and_is_cleared_away(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(1, tensors())
    half = tmp_path / ".step-00000002.partial"
    half.mkdir()
    (half / "shard-00000.safetensors").write_bytes(b"half")
    assert store.latest() == store.path(1)
    store.save(3, tensors())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_the_newest_intact_checkpoint_is_found_and_the_others_are_named(tmp_path, capsys):
    store = CheckpointStore(tmp_path)
    assert store.newest_intact() is None
    for step in (1, 2):
        store.save(step, tensors())
    assert store.newest_intact() == store.path(2)
    (store.path(2) / "checkpoint.json").write_text("{")
    assert store.newest_intact() == store.path(1)
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {store.path(2) / 'checkpoint.json'} is corrupted: it is no JSON (")
    assert "; use an earlier checkpoint of" in said
    assert said.endswith(f"going on with {store.path(1)}, the newest that is intact\n")
    next(store.path(1).glob("*.safetensors")).unlink()
    with pytest.raises(DataError, match="no intact checkpoint among the steps 1, 2"):
        store.newest_intact()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_files_of_torchs_own_writer_are_read(tmp_path):
    dcp.save(tensors(), storage_writer=dcp.HuggingFaceStorageWriter(tmp_path, save_distributed=True), no_dist=True)
    files = {file.name: "" for file in tmp_path.glob("*.safetensors")}
    (tmp_path / "checkpoint.json").write_text(json.dumps({"step": 1, "files": files}))
    found = read_tensors(tmp_path, tensors(0.0))
    assert all(torch.equal(found[name], value) for name, value in tensors().items())


DTYPES = [*checkpoint_storage.DTYPES.values()]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_is_read_by_safetensors_itself_and_the_checksum_is_that_of_the_file(tmp_path, dtype):
    file = tmp_path / "one.safetensors"
    raw = torch.arange(48, dtype=torch.uint8) % 2
    value = {"a": raw.view(dtype).reshape(2, -1).T, "empty": torch.empty(0, 3, dtype=dtype), "b": torch.tensor(1.5)}
    checksum = checkpoint_storage.write_safetensors(file, value, value.__getitem__, {"note": "x"})
    found = load_file(file)
    assert found.keys() == value.keys()
    for name in value:
        assert found[name].dtype == value[name].dtype
        assert found[name].shape == value[name].shape
        assert (
            found[name]
            .contiguous()
            .flatten()
            .view(torch.uint8)
            .equal(value[name].contiguous().flatten().view(torch.uint8))
        )
    assert checksum == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["../secret.txt", "/dev/zero", "link", "pipe", "sub/a.safetensors", ".", "a\0b"])
def test_a_manifest_names_plain_files_of_its_folder_only(name, tmp_path):
    folder = tmp_path / "step-00000001"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.txt", folder / "sub" / "a.safetensors"):
        path.write_text("secret")
    (folder / "link").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / MANIFEST).write_text(json.dumps({"step": 1, "files": {name: "0" * 64}}))
    with pytest.raises(DataError, match=r"is no file in its folder|is missing or corrupted"):
        read_manifest(folder)


def test_a_right_checksum_does_not_make_a_pickle_intact(tmp_path):
    folder = tmp_path / "step-00000001"
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(pickle.dumps({"model.a": [1.0]}))
    (folder / MANIFEST).write_text(
        json.dumps({"step": 1, "files": {"a.safetensors": sha256(folder / "a.safetensors")}})
    )
    with pytest.raises(DataError, match=r"a\.safetensors is missing or corrupted"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("info", "says"),
    [("{", "it is no JSON"), ("[]", "it must be a group"), ('{"a": {"saved_offsets": [-1, 0]}}', "begins at"),
     ('{"a": {"saved_offsets": [0]}}', "begins at"), ('{"a": {"saved_offsets": ["x"]}}', "a whole number")],
)  # fmt: skip
def test_wrong_offsets_are_named(info, says, tmp_path):
    file = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 2)}, file, {"DCP_SHARDING_INFO": info})
    with pytest.raises(DataError, match=says):
        stored_pieces(file)


def test_hashing_can_be_left_out_and_headers_are_read_all_the_same(tmp_path):
    store = CheckpointStore(tmp_path)
    for step in (1, 2):
        store.save(step, tensors())
    file = next(store.path(2).glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert store.newest_intact(verify=False) == store.path(2)
    assert store.newest_intact() == store.path(1)
    file.write_bytes(content[:-1])
    assert store.newest_intact(verify=False) == store.path(1)
