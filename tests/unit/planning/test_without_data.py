"""Plans know the shapes of samples without reading, preparing or simulating any."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciml.app.plan import facts_of
from sciml.core.errors import DataError
from sciml.nn import neighbor_sums
from sciml.planning.degrees import Degrees
from sciml.planning.model_facts import ATTEND_TO_ALL
from sciml.planning.pass_profile import tensors_of
from sciml.run.compose import compose
from sciml.run.spec import RunSpec, follow_data, planned_data
from tests.unit.planning.models import cluster

READERS = {
    "climate": ("domains.climate.data.readers.field.Field.read", "domains.climate.data.store.ClimateStore.read"),
    "fluids": ("domains.fluids.data.readers.source.FlowSource.read",),
}
MAKERS = {
    "climate": ("domains.climate.data.samples.prepare",),
    "fluids": ("domains.fluids.data.datasets.simulate",),
}
GLOBE = ["data.path=/nowhere/era5.zarr", "data.channels=[z500,t850,t2m]", "data.grid=64x32"]


def spec_of(*arguments: str) -> RunSpec:
    return RunSpec.build(compose("train", list(arguments)).config)


def refuse(monkeypatch, *names: str) -> None:
    def raising(*_, **__):
        raise AssertionError("a plan read or made data")

    for name in names:
        monkeypatch.setattr(name, raising)


@pytest.mark.parametrize("domain", ["climate", "fluids"])
def test_a_plan_reads_no_field_and_makes_no_data(monkeypatch, tmp_path, domain):
    refuse(monkeypatch, *READERS[domain], *MAKERS[domain])
    spec = spec_of(f"domain={domain}", f"data.cache={tmp_path}")
    facts = facts_of(spec, cluster("frontier"))
    assert sum(facts.sample_flops()) > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("experiment=era5_finetune", "model=vit_tiny"),
        ("domain=fluids", "data.path=data/fluids/flow.nc", "data.splits={train: 1, valid: 1, test: 1}",
         "task.score_frames=[1]", "task.pushforward=0"),
        ("domain=fluids", "data.simulate={count: 3, frames: 12, nx: 32, nz: 16, cases: [mixed, gravity, thermal]}",
         "data.splits={train: 1, valid: 1, test: 1}"),
    ],
)  # fmt: skip
def test_planned_samples_have_the_shapes_of_real_ones(tmp_path, arguments):
    spec = spec_of(*arguments, f"data.cache={tmp_path}")
    planned_spec, planned = planned_data(spec)
    real_spec, _ = follow_data(spec)
    real = real_spec.domain.splits(real_spec)
    assert planned_spec.config == real_spec.config
    assert planned.schema == real.schema
    made = [splits.train.sample(0, np.random.default_rng(0)) for splits in (planned, real)]
    batches = [splits.train.collate([one, one]) for splits, one in zip((planned, real), made, strict=True)]
    shapes = [[(tensor.shape, tensor.dtype) for tensor in tensors_of(batch)] for batch in batches]
    assert shapes[0] == shapes[1]
    statistics = [
        {name: (value.shape, value.dtype) for name, value in splits.statistics.to_tensors().items()}
        for splits in (planned, real)
    ]
    assert statistics[0] == statistics[1]


def test_weather_that_is_not_there_is_planned_where_keys_say_what_it_is():
    spec, splits = planned_data(spec_of("domain=climate", *GLOBE))
    assert splits.schema.grid_shape == (32, 64)
    sample = splits.train.sample(0, np.random.default_rng(0))
    assert sample.state.shape == (3, 32, 64)
    assert sample.state.device == torch.device("meta")
    assert spec.model.condition_on == ("lead_time", "time_of_day", "time_of_year")  # as on the Earth


@pytest.mark.parametrize("left_out", [1, 2])
def test_weather_that_is_not_there_is_missed_where_keys_do_not(left_out):
    keys = [key for number, key in enumerate(GLOBE) if number != left_out]
    with pytest.raises(DataError, match="nowhere"):
        planned_data(spec_of("domain=climate", *keys))


def test_a_plan_of_materials_reads_one_structure(monkeypatch):
    from domains.materials.data.store import MaterialsStore

    read, whole = [], MaterialsStore.sample

    def counting(store, index):
        read.append(index)
        return whole(store, index)

    monkeypatch.setattr(MaterialsStore, "sample", counting)
    facts = facts_of(spec_of("domain=materials"), cluster("frontier"))
    assert sum(facts.sample_flops()) > 0
    assert len(read) == 1


def test_a_plan_of_materials_fits_no_potential(monkeypatch):
    fits = ("left_by_baseline", "fit_pair_baseline")
    refuse(monkeypatch, *(f"domains.materials.data_defaults.{name}" for name in fits))
    for baseline in ("auto", "meam"):
        spec, splits = planned_data(spec_of("domain=materials", "data.labeled_by=unknown", f"task.baseline={baseline}"))
        assert splits.statistics.pair == {}
        assert spec.model.repulsion == "zbl"


def test_a_solvers_equal_steps_are_counted_once_and_weigh_as_all_do(monkeypatch, tmp_path):
    """The counts of operations equal those of a pass through every step."""
    data = "{count: 3, frames: 12, nx: 32, nz: 16, cases: [mixed, gravity, thermal]}"
    spec = spec_of(
        "domain=fluids", "model=refine", f"data.simulate={data}", "data.splits={train: 1, valid: 1, test: 1}",
        "task.score_frames=[1]", f"data.cache={tmp_path}",
    )  # fmt: skip

    def operations():
        facts = facts_of(spec, cluster("frontier"))
        return facts._pass_profile(Degrees(), "fp32", "none", 1, ATTEND_TO_ALL).operations

    once = operations()
    monkeypatch.setattr("domains.fluids.refine.coarse_solver.equal_rounds", range)
    assert once == operations()


def test_blocks_of_atoms_are_counted_once_and_weigh_as_all_do(monkeypatch):
    """The counts of operations equal those of a pass through every block."""
    monkeypatch.setattr(neighbor_sums, "CACHED_NUMBERS", 2**14)
    facts = facts_of(spec_of("domain=materials"), cluster("frontier"))
    gathered, blocks = neighbor_sums._gathered, []
    monkeypatch.setattr(neighbor_sums, "_gathered", lambda *args: blocks.append(1) or gathered(*args))

    def counted():
        blocks.clear()
        return facts._profile_pass(Degrees(), "fp32", "none", 1, ATTEND_TO_ALL).operations, len(blocks)

    once, few = counted()
    monkeypatch.setattr(neighbor_sums, "equal_rounds", range)
    every, many = counted()
    assert once == every
    assert few < 0.5 * many
