"""Axes are asked for by role: names of axes stand in one list, and in few other files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from sciml.core.errors import ConfigError
from sciml.distributed.axes import AXES, GRADIENTS, REPLICAS, SAMPLES, Role, axes_in, axes_of, key_of, label, num_ranks
from sciml.distributed.mesh import Mesh
from sciml.parallel.config import ParallelConfig

ROOT = Path(__file__).resolve().parents[3]
DEGREES = {"pp": 2, "dp": 3, "shard": 1, "cp": 1, "sp": 5, "tp": 7}
NAMES = {axis.name for axis in AXES}

NAMED_IN = {
    "sciml/distributed/axes.py": "the list of axes",
    "sciml/parallel/config.py": "dp takes what the other degrees leave",
    "sciml/planning/space.py": "the search tries degrees axis by axis",
    "sciml/planning/search.py": "degrees that are given are checked first",
    "sciml/planning/model_facts.py": "a pass is profiled on a mesh of its own for each degree",
    "sciml/planning/parameters.py": "shards are remembered under that word",
    "sciml/planning/machine.py": "shards are measured under that word",
    "sciml/report/plan_summary.py": "candidates are listed by the degrees that cut the model",
    "sciml/report/plan_document.py": "candidates are listed by the degrees that cut the model",
    "sciml/tuning/space.py": "dp takes what the other degrees leave",
    "domains/climate/data/vocabulary.py": "short names of surface pressure and precipitation",
}
"""Files that name an axis in a string, and why."""


def names_in(path: Path) -> set[str]:
    """Returns the axes that a file names in string literals."""
    literals = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
    return {value for value in literals if isinstance(value, str)} & NAMES


def test_no_other_file_names_an_axis():
    files = [*ROOT.glob("sciml/**/*.py"), *ROOT.glob("domains/**/*.py"), *ROOT.glob("scripts/*.py")]
    naming = {str(path.relative_to(ROOT)) for path in files if names_in(path)}
    assert naming == set(NAMED_IN)


def test_the_guide_to_adding_an_axis_names_files_that_exist_and_at_most_six():
    text = (ROOT / "docs" / "parallelism.md").read_text().partition("## Adding an axis")[2].partition("\n## ")[0]
    listed = [
        line.split("`")[1] for line in text.splitlines() if line.startswith(("1.", "2.", "3.", "4.", "5.", "6.", "7."))
    ]
    assert 3 <= len(listed) <= 6
    assert all((ROOT / path).is_file() for path in listed)
    assert "sciml/distributed/axes.py" in listed


def test_every_axis_is_a_degree_that_users_may_set():
    assert {axis.name for axis in AXES} == set(ParallelConfig().given)
    assert all(axis.key == f"parallel.{axis.name}" for axis in AXES)
    assert {axis.role for axis in AXES} == set(Role)


def test_degrees_and_names_of_communication_go_by_role():
    assert [axis.name for axis in axes_of(*SAMPLES)] == ["dp", "shard"]
    assert num_ranks(DEGREES, *SAMPLES) == 3
    assert num_ranks(DEGREES, *GRADIENTS) == 15
    assert num_ranks(DEGREES) == 1
    assert label(DEGREES, *REPLICAS) == "dp_sp"
    assert label(DEGREES, Role.SHARD) == ""
    assert [axis.role for axis in axes_in("dp_sp")] == [Role.DATA, Role.TOKEN]
    assert axes_in("none") == ()
    assert key_of(Role.TOKEN) == "parallel.sp"


def test_a_mesh_takes_roles_and_names_and_refuses_others():
    mesh = Mesh.alone()
    assert mesh.size(*Role) == 1
    assert mesh.rank(Role.MATRIX, "pp") == 0
    assert mesh.group(*GRADIENTS) is None
    for ask in (mesh.size, mesh.rank, mesh.group):
        with pytest.raises(KeyError, match="no axis is called 'tensor'"):
            ask("tensor")


def test_a_second_axis_of_a_role_joins_the_first(monkeypatch, request):
    """Whoever asks by role gets the ranks of both; nothing else has to change."""
    from sciml.distributed import axes, mesh
    from sciml.distributed.world import World

    more = (*AXES[:-1], axes.Axis("xp", Role.TOKEN), AXES[-1])
    for module in (axes, mesh):
        monkeypatch.setattr(module, "AXES", more)
    request.addfinalizer(axes.axes_of.cache_clear)
    axes.axes_of.cache_clear()
    found = object.__new__(mesh.Mesh)
    object.__setattr__(found, "world", World(11, 16, torch.device("cpu")))
    object.__setattr__(found, "degrees", {"pp": 1, "dp": 2, "shard": 1, "cp": 1, "sp": 2, "xp": 2, "tp": 2})
    assert found.size(Role.TOKEN) == 4
    assert found.rank(Role.TOKEN) == 11 // 2 % 4
    assert found.rank(*SAMPLES) == 1
    assert axes.label(found.degrees, *REPLICAS) == "dp_sp_xp"
    assert axes.num_ranks(found.degrees, *GRADIENTS) == 8


def test_degrees_that_do_not_fit_name_the_axis():
    with pytest.raises(ConfigError, match=r"parallel.tp: .*fit 3 processes"):
        ParallelConfig(tp=2).degrees(3)
