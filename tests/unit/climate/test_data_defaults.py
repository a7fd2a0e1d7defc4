"""What a configuration leaves to the data is decided by what they say of themselves."""

import pytest

from domains.climate.data.synthetic import synthetic_source
from domains.climate.data_defaults import EARTH, SUN
from sciml.core.errors import ConfigError
from sciml.run.compose import compose
from sciml.run.spec import RunSpec, follow_data
from sciml.testing.sessions import start_session
from tests.unit.climate.weather_files import write_cds_new

BLIND = {"position_features": ("latitude",), "condition_on": ("lead_time",)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with the same waves as the Earth's (era5.nc), as those of a symmetric planet, and of one
    without mirrored hemispheres.
    """
    folder = tmp_path_factory.mktemp("planets")
    waves = synthetic_source(num_times=120, step_hours=6)
    write_cds_new(waves, folder / "era5.nc")
    for name, symmetries in (("symmetric", "longitude, equator"), ("rolling", "longitude")):
        waves.assign_attrs(symmetries=symmetries).to_netcdf(folder / f"{name}.nc")
    return folder


def decided(folder, file, *overrides, **groups):
    arguments = [f"data.path={folder / file}", f"data.cache={folder / 'cache'}", *overrides]
    return follow_data(RunSpec.build({**compose("train", ["domain=climate", *arguments]).config, **groups}))


@pytest.mark.parametrize("model", ["vit_small", "plain_vit_tiny", "climax_tiny"])
def test_other_data_than_symmetric_simulations_are_the_earth(folder, model):
    spec, sentence = decided(folder, "era5.nc", f"model={model}")
    assert spec.data.augment == "none"
    assert SUN in spec.task.forcings
    told = "the sun" if model == "climax_tiny" else "place, time and the sun"
    assert sentence.startswith(f"the data are no symmetric simulation: the model is told {told}: ")
    if model == "climax_tiny":  # no block is conditioned on time: it comes as fields
        assert set(spec.task.forcings) == {SUN, "time_of_day", "time_of_year"}
    else:
        assert {name: getattr(spec.model, name) for name in EARTH} == EARTH
        assert spec.task.forcings == [SUN]


def test_a_reference_model_that_names_no_inputs_is_given_those_of_the_earth(folder):
    spec, _ = decided(folder, "era5.nc", model={"kind": "unet"})
    assert {name: getattr(spec.model, name) for name in EARTH} == EARTH


@pytest.mark.parametrize(("file", "augment"), [("symmetric.nc", "roll_mirror"), ("rolling.nc", "roll")])
def test_a_symmetric_simulation_says_so_itself(folder, file, augment):
    spec, sentence = decided(folder, file)
    assert spec.data.augment == augment
    assert {name: getattr(spec.model, name) for name in BLIND} == BLIND
    assert spec.task.forcings == []
    assert "the same at every longitude" in sentence


def test_constant_fields_break_the_symmetry(folder):
    spec, sentence = decided(folder, "symmetric.nc", "data.statics=[latitude]")
    assert spec.data.augment == "none"
    assert "place, time, the sun and latitude" in sentence


def test_what_is_typed_wins(folder):
    typed = ["model.position_features=[latitude]", "data.augment=roll", "task.forcings=[]", "task.intervals=[24h]",
             "model.condition_on=[lead_time]", "task.score_lead_times=[24h]"]  # fmt: skip
    spec, sentence = decided(folder, "era5.nc", *typed)
    assert sentence == ""
    assert spec.model.position_features == ("latitude",)
    assert spec.data.augment == "roll"
    assert spec.task.forcings == []


def test_ranges_of_intervals_end_where_the_splits_do(folder):
    spec, _ = decided(folder, "era5.nc")  # 30 days: validation and test have three of them each
    assert spec.task.intervals == [f"{hours}h" for hours in range(12, 61, 6)]
    assert spec.task.score_lead_times == ["24h", "48h", "60h"]
    rollout, _ = decided(folder, "era5.nc", "task.intervals=[6h,12h]")
    assert rollout.task.score_lead_times == ["24h", "48h", "60h"]
    with pytest.raises(ConfigError, match=r"data\.splits\.\w+: no two times .* are 120 h apart"):
        start_session(compose("train", [f"data.path={folder / 'era5.nc'}", f"data.cache={folder / 'cache'}",
                                        "task.intervals=[120h]"]))  # fmt: skip


def test_the_run_records_what_was_decided(folder, tmp_path, capsys):
    arguments = [f"data.path={folder / 'era5.nc'}", f"data.cache={folder / 'cache'}", "model.depth=1"]
    session = start_session(compose("train", [*arguments, f"runs_dir={tmp_path}", "trainer.max_steps=1"]))
    config = session.folder.record["config"]
    assert config["model"]["position_features"] == ["latitude", "longitude"]
    assert config["task"]["forcings"] == [SUN]
    assert config["data"]["augment"] == "none"
    assert capsys.readouterr().err.count("the data are no symmetric simulation") == 1


@pytest.mark.parametrize("experiment", ["era5", "era5_1.4deg", "era5_0.25deg"])
def test_the_presets_of_the_earth_tell_place_time_and_sun(folder, experiment):
    spec, _ = decided(folder, "era5.nc", f"experiment={experiment}", "data.grid=null", "task.intervals=[6h..24h]")
    assert set(EARTH["condition_on"]) <= set(spec.model.condition_on)
    assert set(EARTH["position_features"]) <= set(spec.model.position_features)
    assert spec.task.forcings == [SUN]


def test_a_model_that_starts_from_another_is_conditioned_as_that_was(folder, tmp_path):
    """Weights of a blind model fit on the Earth, too: it is told the time by fields that are new to it."""
    small = [
        "model=plain_vit_tiny", "model.depth=1", "model.embed_dim=32", f"runs_dir={tmp_path}", "trainer.max_steps=1",
        "reference_models=null", f"data.cache={folder / 'cache'}",
    ]  # fmt: skip
    blind = start_session(compose("train", [*small, f"data.path={folder / 'symmetric.nc'}"]))
    blind.fit()
    source = f"init_from={blind.folder.path}"
    earth = start_session(compose("train", [*small, f"data.path={folder / 'era5.nc'}", source]))
    assert earth.spec.model.condition_on == ("lead_time",)
    assert earth.spec.model.position_features == ("latitude",)
    assert set(earth.spec.task.forcings) == {SUN, "time_of_day", "time_of_year"}
    weights = dict(blind.trainer.engine.model.module.named_parameters())
    for name, value in earth.trainer.engine.model.module.named_parameters():
        if "tokenizer" not in name:
            assert value.shape == weights[name].shape, name
