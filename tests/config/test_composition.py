"""Groups, experiments and the command line compose as the documentation says."""

import dataclasses

import pytest
from omegaconf import OmegaConf

from sciml.app.cli import main
from sciml.app.help import domains_of, help_text
from sciml.core.errors import ConfigError
from sciml.core.groups import options
from sciml.core.installation import CONF, ROOT
from sciml.run.compose import compose
from sciml.run.overrides import read_arguments
from sciml.run.reference_models import build_reference_models
from sciml.run.spec import RunSpec


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_and_each_of_its_reference_models_is_valid(experiment):
    spec = RunSpec.build(compose("train", [f"experiment={experiment}"]).config)
    assert all(reference.spec.model.kind for reference in build_reference_models(spec))


@pytest.mark.parametrize("model", options("model"))
def test_every_model_is_valid(model):
    domains = domains_of("model", model)
    domain = "fluids" if "_flow_" in model else domains[0]
    spec = RunSpec.build(compose("train", [f"domain={domain}", f"model={model}"]).config)
    assert spec.model.kind
    assert all(reference.spec.model.kind for reference in build_reference_models(spec))


@pytest.mark.parametrize("group", ["tracking", "optim", "engine"])
def test_every_option_is_valid(group):
    for option in options(group):
        RunSpec.build(compose("train", [f"{group}={option}"]).config)


def test_the_command_line_wins_over_the_experiment():
    overrides = ["experiment=climate_archive", "model=vit_tiny", "trainer.max_steps=7", "optim.betas=[0.8,0.9]"]
    built = RunSpec.build(compose("train", overrides).config)
    assert built.model.embed_dim == 128
    assert built.trainer.max_steps == 7
    assert built.trainer.valid_every == 1000
    assert built.optim.betas == (0.8, 0.9)


def test_a_key_that_a_file_leaves_out_can_be_set():
    assert RunSpec.build(compose("train", ["data.preload_gb=1.5"]).config).data.preload_gb == 1.5


def test_configurations_are_frozen():
    built = RunSpec.build(compose("train", []).config)
    with pytest.raises(AttributeError):
        built.trainer.max_steps = 1


def test_the_domain_is_the_only_target():
    targets = [path for path in CONF.rglob("*.yaml") if "_target_" in path.read_text()]
    assert {path.parent.name for path in targets} == {"domain"}


def test_help_shows_groups_with_their_options_and_keys_with_their_defaults():
    text = help_text("train")
    assert "vit_tiny" in text
    assert "climate_archive" in text
    assert "  seed=0  " in text
    assert "  optim.lr=0.005  " in text  # of the composed domain, not of the dataclass


@pytest.mark.parametrize("name", ["größe.nc", "ö ä.nc", "данные/*.nc"])
def test_letters_of_any_language_need_no_quotes(name):
    assert compose("train", [f"data.path={name}", f"run={name}"]).overrides == {"data.path": name}
    assert compose("train", [f"run={name}"]).config["run"] == name


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("", "'' is no override; write key=value"),
        ("=1", "write key=value"),
        ("word", "'word' is no override"),
    ],
)
def test_what_hydra_cannot_read_is_a_sentence(argument, says):
    with pytest.raises(ConfigError, match=says):
        compose("train", [argument])


def test_a_file_of_ones_own_that_is_no_yaml_is_a_sentence(tmp_path):
    (tmp_path / "domain").mkdir()
    (tmp_path / "domain" / "mine.yaml").write_text("a: [")
    with pytest.raises(ConfigError):
        compose("train", ["domain=mine"], str(tmp_path))


@pytest.mark.parametrize("domain", options("domain"))
def test_help_of_a_training_tells_type_and_meaning_of_every_key_that_is_composed(domain):
    text = help_text("train", [f"domain={domain}"])
    config = RunSpec.build(compose("train", [f"domain={domain}"]).config)
    for group in ("data", "task", "model", "trainer", "optim", "parallel", "engine", "tracking"):
        for field in dataclasses.fields(getattr(config, group)):
            assert f"\n  {group}.{field.name}" in text, f"{group}.{field.name}"


def test_help_of_a_group_tells_of_each_option_by_domain():
    text = help_text("train", ["model"])
    assert all(option in text for option in options("model"))
    assert text.index("for domain=materials") < text.index("gnn_tiny") < text.index("for domain=language")
    with pytest.raises(ConfigError, match="did you mean 'model'"):
        help_text("train", ["modell"])


@pytest.mark.parametrize("domain", options("domain"))
def test_the_example_of_a_domain_is_a_training(domain, capsys):
    main("train", ["--config", str(ROOT / "docs" / "examples" / f"{domain}.yaml"), "--cfg", "optim.lr=0.125"])
    config = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))
    spec = RunSpec.build(config)
    assert spec.domain.name == domain
    assert spec.options.run == "first_try"
    assert spec.optim.lr == 0.125  # what is typed wins


def test_a_file_of_keys_that_is_none_is_refused(tmp_path):
    file = tmp_path / "my.yaml"
    for text in ("- a\n", "a: [\n", "1: 2\n"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="--config"):
            read_arguments(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_arguments(tmp_path / "missing.yaml")


def data_of(*arguments, **options):
    return compose("train", list(arguments), **options).config["data"]


def test_own_data_are_not_described_as_the_default_data_are():
    """A title, splits by number and mirror symmetry are claims about other files."""
    assert data_of("domain=materials", "data.path=mine.extxyz") == {"path": "mine.extxyz"}
    assert data_of("domain=fluids", "data.path=cavity.nc") == {"path": "cavity.nc"}
    assert data_of("domain=language", "data.path=mine.txt") == {"path": "mine.txt"}


def test_what_was_typed_or_chosen_by_name_holds_for_own_data():
    typed = data_of("domain=fluids", "data.path=mine.nc", "data.splits.train=36", "data.augment=roll_mirror")
    assert typed == {"path": "mine.nc", "splits": {"train": 36}, "augment": "roll_mirror"}
    chosen = data_of("domain=materials", "data=materials_chgnet", "data.path=mine.extxyz")
    assert chosen["title"] == "CHGNet-labeled alloys, not DFT"


def test_default_data_are_described_as_before():
    assert data_of("domain=fluids")["augment"] == "roll_mirror"
    assert data_of("domain=fluids", "data.simulate.count=8")["simulate"]["count"] == 8


def test_a_domain_of_ones_own_has_default_data_too(tmp_path):
    for name, text in {
        "domain/mine.yaml": "# @package _global_\ndefaults:\n  - /data: own\ndomain:\n  _target_: mine.Mine\n",
        "data/own.yaml": "path: a.dat\ntitle: of a\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    options = {"config_dir": str(tmp_path)}
    assert data_of("domain=mine", **options)["title"] == "of a"
    assert data_of("domain=mine", "data.path=b.dat", **options) == {"path": "b.dat"}
