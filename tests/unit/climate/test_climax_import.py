"""A published ClimaX becomes a run, or one sentence and nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from domains.climate.data.synthetic import synthetic_source
from domains.climate.model.climax_import import VARIABLES
from domains.climate.model.climax_weights import ClimaXWeights
from sciml.app.cli import main
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_model, load_run
from sciml.testing.sessions import start_session
from tests.unit.climate.climax_files import tensors, write

NAMES = ["lattitude", "geopotential_500", "2m_temperature", "temperature_850"]


@pytest.fixture
def run(tmp_path):
    """Imports a file of four variables; returns the run's folder."""

    def run(*arguments: str, named=None, suffix=".ckpt") -> RunFolder:
        file = write(tmp_path / f"published{suffix}", named or tensors(len(NAMES)))
        out = tmp_path / "run"
        main("import", [f"climax={file}", f"out={out}", f"variables=[{','.join(NAMES)}]", "num_heads=2", *arguments])
        return RunFolder.find(str(out), "")

    return run


@pytest.fixture
def refused(run, tmp_path, capsys):
    """Returns the sentence of an import that fails, having checked that it wrote nothing."""

    def refused(*arguments: str, **options) -> str:
        with pytest.raises(SystemExit) as ended:
            run(*arguments, **options)
        said = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2
        assert len(said) == 1
        assert not [path for path in tmp_path.iterdir() if "run" in path.name]
        return said[0]

    return refused


def test_the_variables_are_those_of_the_published_models():
    assert len(VARIABLES) == 48
    assert VARIABLES[13] == "u_component_of_wind_50"
    assert VARIABLES[-1] == "specific_humidity_925"


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_run_is_opened_with_the_files_weights(run, suffix):
    named = tensors(len(NAMES))
    loaded = load_model(run("south_first=false", suffix=suffix))
    assert loaded.model.channels == ("z500", "t2m", "t850")
    assert loaded.model.constants == ("latitude",)
    assert loaded.fitted.schema.grid_shape == (8, 16)
    assert loaded.spec.model.predicts == "state"
    assert torch.equal(loaded.model.position.weight, named["pos_embed"][0])
    assert torch.equal(loaded.model.trunk.blocks[1].attention.wk.weight, named["blocks.1.attn.qkv.weight"][16:32])
    rows = named["head.2.weight"].view(4, 4, 16)  # pixel, variable, channel
    assert torch.equal(loaded.model.head.project.weight.view(3, 4, 16)[2], rows[:, 3])


def test_all_forms_of_names_are_the_same_model(tmp_path):
    loop = tensors(3)
    kernels = torch.stack([loop.pop(f"token_embeds.{n}.proj.weight") for n in range(3)])
    biases = torch.stack([loop.pop(f"token_embeds.{n}.proj.bias") for n in range(3)])
    parallel = {**loop, "token_embeds.proj_weights": kernels, "token_embeds.proj_biases": biases}
    oldest = {name.replace("var_", "channel_"): value for name, value in parallel.items()}
    files = [write(tmp_path / f"{n}.pt", named) for n, named in enumerate((tensors(3), parallel, oldest))]
    first, *others = [ClimaXWeights.read(file).tensors for file in files]
    for other in others:
        assert all(torch.equal(other[name], value) for name, value in first.items())


def test_statistics_and_the_chosen_variables(run, tmp_path):
    numbers = {name: np.array([10.0 * (n + 1)]) for n, name in enumerate(NAMES)}
    np.savez(tmp_path / "mean.npz", **numbers)
    np.savez(tmp_path / "std.npz", **{name: value / 100 for name, value in numbers.items()})
    folder = run(f"mean={tmp_path / 'mean.npz'}", f"std={tmp_path / 'std.npz'}", "channels=[t850,2m_temperature]",
                 "statics=[]", "step=12h", "model.dropout=0.0")  # fmt: skip
    loaded = load_model(folder)
    assert loaded.model.tokenizer.variables == ("t850", "t2m")
    assert loaded.fitted.statistics.mean.tolist() == [40.0, 30.0]
    assert loaded.fitted.statistics.increment_std.tolist() == [pytest.approx([0.4, 0.3])]
    assert loaded.fitted.schema.step_hours == 12
    assert loaded.spec.model.dropout == 0


def test_an_imported_run_forecasts_and_starts_another(run, tmp_path):
    synthetic_source(num_times=40, step_hours=12).to_zarr(tmp_path / "waves.zarr", zarr_format=2)
    data = [f"data.path={tmp_path / 'waves.zarr'}", f"data.cache={tmp_path / 'cache'}",
            "data.channels=[z500,t2m,t850]", "data.statics=[latitude]", "data.augment=none"]  # fmt: skip
    task = ["task.intervals=[24h]", "task.score_lead_times=[24h]", "task.forcings=[]"]
    folder = run(*data, *task)
    loaded = load_run(folder)
    batch = loaded.splits.test.collate([loaded.splits.test.sample(0, np.random.default_rng(0))])
    with torch.no_grad():
        predicted = loaded.task.predict(loaded.model, batch).values["fields"]
        normal = (batch.state - loaded.fitted.statistics.mean[:, None, None]) / loaded.fitted.statistics.std[
            :, None, None
        ]
        said = loaded.model(normal, None, batch.intervals[:, 0], batch.time, loaded.splits.statistics.statics)
    torch.testing.assert_close(predicted, said, rtol=1e-4, atol=0.1)  # mean 0, deviation 1
    record = folder.record["config"]["model"]
    model = [f"model.{key}={record[key]}" for key in ("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size",
                                                      "head_depth", "predicts")]  # fmt: skip
    fine = start_session(compose("train", ["model=climax_tiny", *model, *data, *task, f"init_from={folder.path}",
                                           f"runs_dir={tmp_path}", "trainer.max_steps=2"]))  # fmt: skip
    for name, value in fine.trainer.engine.model.module.named_parameters():
        assert torch.equal(value, loaded.model.get_parameter(name)), name


def test_the_result_as_json(tmp_path, capsys):
    file = write(tmp_path / "published.pt", tensors(48, dim=64, depth=1))
    main("import", [f"climax={file}", f"out={tmp_path / 'run'}", "output=json"])
    said = json.loads(capsys.readouterr().out)
    model = load_model(RunFolder.find(said["path"], "")).model
    assert sum(p.numel() for p in model.parameters()) == said["parameters"]
    assert len(model.channels) == 45
    assert model.config.num_heads == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["climax=nothing.pt"], "climax: there is no file nothing.pt"),
        (["climax=README.md"], "climax: README.md is no file of weights; name one of .ckpt"),
        (["variables=null"], "has 4 variables, 48 are named"),
        (["variables=[a,b,c,d]"], "variables: unknown channel 'a'"),
        (["variables=[t2m,2m_temperature,z500,z850]"], "variables: t2m is named twice"),
        (["channels=[t500]"], "channels: the file has no 't500' for them"),
        (["num_heads=5"], "num_heads must divide the file's embed_dim, got 5 and 16"),
        (["num_heads=null"], "do not make heads of 64"),
        (["grid=32x16"], "grid: 32x16 has 128 patches, the file 32 positions"),
        (["mean=pyproject.toml"], "mean: pyproject.toml cannot be read as .npz"),
        (["lead_time_unit=0h"], "lead_time_unit must be longer than 0 h"),
        (
            ["model.depth=3"],
            "model: the model has trunk.blocks.2.attention.wk.bias of shape (16,), the file gives None",
        ),
        (["trainer.max_steps=-1"], "trainer.max_steps must be"),
    ],
)
def test_keys_that_do_not_fit_are_refused(refused, arguments, sentence):
    assert sentence in refused(*arguments)


def without(name):
    return {key: value for key, value in tensors(4).items() if key != name}


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"weight": torch.zeros(2)}, "holds no ClimaX"),
        (without("norm.bias"), "it has no norm.bias, which of shape (16,) is needed"),
        (without("pos_embed"), "holds no ClimaX"),
        (without("token_embeds.0.proj.weight"), "token_embeds.N.proj.weight"),
        ({**tensors(4), "norm.bias": torch.full((16,), torch.nan)}, "norm.bias is not finite everywhere"),
        ({**tensors(4), "norm.bias": torch.ones(16).long()}, "norm.bias is of torch.int64; floating-point"),
        ({**tensors(4), "extra": torch.zeros(2)}, "it has extra of shape (2,), which is not part of one"),
        ({**tensors(4), "pos_embed": torch.zeros(1, 30, 16)}, "30 positions of 2x2 do not make a grid"),
    ],
)
def test_files_of_another_model_are_refused(refused, named, sentence):
    assert sentence in refused(named=named)


def test_prefixes_of_training_code_are_left_out(tmp_path):
    for prefix in ("net.", "module.", "module.net."):
        torch.save({f"{prefix}{name}": value for name, value in tensors(4).items()}, tmp_path / "a.ckpt")
        assert ClimaXWeights.read(tmp_path / "a.ckpt").embed_dim == 16


def test_a_pickle_of_more_than_tensors_is_refused(tmp_path, capsys):
    torch.save({"state_dict": tensors(4), "callbacks": Path("anything")}, tmp_path / "published.ckpt")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for file, sentence in (
        ("published.ckpt", "holds more than tensors, and is not opened"), ("broken.safetensors", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main("import", [f"climax={tmp_path / file}", f"out={tmp_path / 'run'}"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert "weights_only" not in said
        assert len(said.splitlines()) == 1
        assert not (tmp_path / "run").exists()


def test_a_folder_that_is_there_is_kept(run, capsys):
    record = run().path / "run.json"
    before = record.read_text()
    with pytest.raises(SystemExit) as ended:
        run("channels=[t2m]")
    assert ended.value.code == 2
    assert "is there already" in capsys.readouterr().err
    assert record.read_text() == before
