"""Flows that cannot be used end in one sentence and exit code 2, before a run is begun."""

import re

import netCDF4
import numpy as np
import pytest

from domains.fluids.data.readers import open_sources
from domains.fluids.solver import SolverGrid
from sciml.app.cli import main
from sciml.run.folder import RunFolder
from tests.reports import without_reports
from tests.unit.fluids import flow_files

GRID = SolverGrid(16, 8)
TIMES = tuple(10.0 * n for n in range(12))
TINY = (
    "domain=fluids", "model=amr_tiny",
    "model.embed_dim=16", "model.depth=1", "model.num_heads=1", "model.rotary_max_harmonic=2",
    "model.patch_size=4", "task.score_frames=[1,2]", "trainer.max_steps=2", "trainer.num_threads=1",
    "trainer.global_batch_size=2", "reference_models=null",
)  # fmt: skip


@pytest.fixture
def flows(tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    for number in range(4):
        flow_files.miniweather(folder / f"{number}.nc", GRID, TIMES)
    return folder


def spoil(path, change):
    with netCDF4.Dataset(path, "a") as file:
        change(file)


def not_a_number(file):
    file["theta"][3, 2, 5] = np.nan


def uneven(file):
    file["t"][5:] = file["t"][5:] + 50


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize("number", range(4))  # whichever split it falls into
def test_a_value_that_is_no_number(refused, flows, number):
    spoil(flows / f"{number}.nc", not_a_number)
    said = refused("train", *TINY, f"data.path={flows}", "data.splits={train: 2, valid: 1, test: 1}")
    assert f"{number}.nc: theta is not a finite number at time 30, cell z=2 x=5" in said


def test_times_that_are_not_uniform(refused, flows):
    spoil(flows / "2.nc", uneven)
    said = refused("train", *TINY, f"data.path={flows}")
    assert "2.nc: times are not uniform, frames 4 and 5 are 60 apart and most are 10" in said


def test_a_truncated_file(refused, flows):
    truncate(flows / "1.nc")
    assert re.search(r"1\.nc: .*(truncated|shorter|damaged|cut)", refused("train", *TINY, f"data.path={flows}"))


def test_a_truncated_amira_mesh(refused, tmp_path):
    flow_files.amira(tmp_path / "flow.am")
    truncate(tmp_path / "flow.am")
    assert "flow.am" in refused("train", *TINY, f"data.path={tmp_path / 'flow.am'}", "task.conserve=[]")


def test_mixed_grids_in_a_folder(refused, flows):
    flow_files.miniweather(flows / "other.nc", SolverGrid(20, 10), TIMES)
    assert "are on different grids (16 x 8 cells" in refused("train", *TINY, f"data.path={flows}")


def test_a_missing_variable(refused, flows):
    flow_files.without(flows / "2.nc", "wwnd")
    assert "2.nc: no variable wwnd" in refused("train", *TINY, f"data.path={flows}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data.variables=[dens,tetha]"], r"data\.variables: .*no variable 'tetha'; did you mean 'theta'"),
        (
            ["data.boundary={x: periodc, z: wall}"],
            r"data\.boundary\.x: unknown boundary 'periodc'; did you mean 'periodic'",
        ),
        (["data.boundary={x: periodic}"], r"data\.boundary: x and z are needed"),
        (["data.boundary={x: open, z: wall}", "data.augment=roll"], r"data\.augment: flow is not periodic along x"),
        (["model.budgets=[1.5]"], r"model\.budgets\.0 must be at most 1, got 1\.5; try model\.budgets=\[0\.25\]"),
        (["model.ratios=[3]"], r"model\.ratios: patches of 4 cells cannot be refined by \[3\]"),
        (["model.indicator=vortex"], r"model\.indicator must be one of .*, got 'vortex'"),
        (["model.indicator=learned", "parallel.pp=2"], r"model\.indicator: .*no stage of a pipeline; use hybrid"),
        (["task.pushforward=1", "parallel.pp=2"], r"task\.pushforward: .*pipeline stages"),
        (["task.score_frames=[30]"], r"data\.splits\.test: the longest flow of the test split has 12 frames, 31 are"),
        (["data.path=nowhere"], r"nowhere: no such file or folder"),
        (["data.augment=turn"], r"data\.augment must be one of auto, none, roll, roll_mirror, got 'turn'"),
        (["data.splits.train=-1"], r"data\.splits\.train must be at least 0, got -1; try data\.splits\.train=0\.75"),
        (["model=plain_vit_tiny"], "model: plain_vit_tiny is for domain=climate, not for domain=fluids"),
    ],
)
def test_training_refuses(refused, flows, arguments, says):
    said = refused("train", *TINY, f"data.path={flows}", *arguments)
    assert re.search(says, said), said


@pytest.fixture
def run(flows, tmp_path):
    with without_reports():
        main("train", [*TINY, f"data.path={flows}", f"runs_dir={tmp_path / 'trained'}"])
    return RunFolder.find("latest", str(tmp_path / "trained")).path


def test_forecasts_and_evaluations_refuse(refused, run, tmp_path):
    flow_files.cgl(tmp_path / "cylinder.nc", frames=20)
    for verb, arguments, says in [
        ("forecast", ["lead_time=15s"], r"lead_time: 15 s is not a multiple of the data's step of 10 s; .*20s"),
        ("forecast", ["init_time=7@0s"], r"init_time: there is no flow 7; the test split has 0 to 0"),
        ("forecast", ["init_time=0@500s"], r"init_time: flow 0 has no frame at 500 s; .* init_time=0@110"),
        ("forecast", ["init_time=here"], r"init_time: 'here' is no duration"),
        ("forecast", ["lead_time=20s", "out=a.zarr"], r"out: 'a\.zarr' does not end in \.nc"),
        ("evaluate", [f"data.path={tmp_path / 'cylinder.nc'}", "data.augment=none"], r"data\.path: the data have"),
    ]:  # fmt: skip
        said = refused(verb, f"run={run}", *arguments)
        assert re.search(says, said), said


@pytest.mark.usefixtures("no_reports")
def test_a_grid_that_patches_do_not_divide_is_padded(tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    for number in range(4):
        flow_files.miniweather(folder / f"{number}.nc", SolverGrid(18, 9), TIMES)
    main("train", [*TINY, f"data.path={folder}", f"runs_dir={tmp_path}", "model.patch_size=8"])
    scores = RunFolder.find("latest", str(tmp_path)).scores()
    assert all(np.isfinite(row["value"]) for row in scores)
    assert {row["variable"] for row in scores if row["metric"] == "vrmse"} == {"dens", "uwnd", "wwnd", "theta"}


def test_a_channel_around_an_obstacle_is_learned_from_a_single_file(tmp_path):
    flow_files.cgl(tmp_path / "cylinder.nc", frames=20)
    channel = ["data.augment=none", "data.splits={train: 2, valid: 1, test: 1}"]
    main("train", [*TINY, *channel, f"data.path={tmp_path / 'cylinder.nc'}", f"runs_dir={tmp_path}"])
    scores = RunFolder.find("latest", str(tmp_path)).scores()
    assert {row["variable"] for row in scores} == {"uwnd", "wwnd"}
    main("forecast", [f"runs_dir={tmp_path}", "lead_time=1s", f"out={tmp_path / 'forecast.nc'}"])
    (flow,) = open_sources(str(tmp_path / "forecast.nc"))
    np.testing.assert_array_equal(flow.mask, open_sources(str(tmp_path / "cylinder.nc"))[0].mask)
    assert flow.units == ("", "")
