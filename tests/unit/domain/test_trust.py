"""What a file names as its domain is imported only where it is this project's or the user's own."""

import json
import sys

import pytest

from sciml.core.errors import ConfigError, DataError
from sciml.domain import trust
from sciml.domain.loading import load_domain
from sciml.run.compose import compose
from sciml.run.folder import RunFolder

STRANGER = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\n\nclass Domain: ...\n"


@pytest.fixture(autouse=True)
def _nothing_declared(monkeypatch):
    monkeypatch.setattr(trust, "_declared", set())


def folder(path, target):
    record = {"domain": "theirs", "config": {"domain": {"_target_": target}}}
    (path / "run.json").write_text(json.dumps(record))
    return RunFolder(path)


@pytest.mark.parametrize(
    "target",
    ["http.server.test", "stranger.Domain", "os.system", "domains.", "domains..a", "xdomains.a.B", "", None, 3, ["a"]],
)  # fmt: skip
def test_a_strangers_domain_is_not_imported(target, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"run\.json (names the domain|is corrupted)"):
        folder(tmp_path, target).record  # noqa: B018
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules


def test_domains_of_this_project_and_declared_ones_are_taken(tmp_path):
    own = tmp_path / "conf" / "domain"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\ndomain:\n  _target_: mine.MyDomain\n")
    assert folder(tmp_path, "domains.climate.domain.ClimateDomain").record["domain"] == "theirs"
    with pytest.raises(DataError, match="add --config-dir"):
        folder(tmp_path, "mine.MyDomain").record  # noqa: B018
    compose("evaluate", ["run=latest"], str(tmp_path / "conf"))
    assert folder(tmp_path, "mine.MyDomain").record["domain"] == "theirs"


@pytest.mark.parametrize("target", ["sciml.core.files.sha256", "domains.climate.data.schema.ClimateSchema"])
def test_what_is_no_domain_is_not_called(target, monkeypatch):
    module, _, name = target.rpartition(".")
    called = []
    if isinstance(getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name), type):
        monkeypatch.setattr(f"{target}.__init__", lambda *_: called.append(target))
    with pytest.raises(ConfigError, match=r"is no class|lacks check"):
        load_domain({"_target_": target})
    assert not called
