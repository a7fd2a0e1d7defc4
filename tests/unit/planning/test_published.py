"""The model of throughput beside what was published of Frontier.

Two constants are fitted, and to two points alone: the hardware throughput of 175 B (36.14%) and of 1 T (31.96%), both
with the recipe's batch for each replica (640 and 1,600 sequences). The recipes say "global batch"; that it is a
replica's, at 1,024 and 3,072 GCDs, follows from three things: 1,600 sequences cannot be shared equally by 6 replicas,
which Megatron demands; weak scaling was 100%, with a batch that grows; and with the batch of the whole machine the
published throughput of 175 B and 22 B cannot both be met, see the last test. All else here is predicted.

Source: Dash et al. (2023), https://doi.org/10.48550/arXiv.2312.12705, and the talk.
"""

from __future__ import annotations

import pytest

from sciml.planning.cluster import Efficiency
from tests.unit.planning.models import gpt, recipe, throughput

RUN_175B = ("gpt_175b", recipe(4, 16, 16), 640 * 16)
RUN_1T = ("gpt_1t", recipe(8, 64, 6), 1600 * 6)
PUBLISHED_22B, PUBLISHED_175B, PUBLISHED_1T = 0.3838, 0.3614, 0.3196
STRONG_1T = 0.8705


def hardware(run, efficiency=None):
    name, strategy, batch = run
    return throughput(gpt(name), batch, efficiency).speed(strategy).hardware_flops


def seconds(name, strategy, batch):
    return throughput(gpt(name), batch).of(strategy).total


@pytest.mark.parametrize(
    ("name", "billions"), [("gpt_22b", 22.07), ("gpt_175b", 174.6), ("gpt_1t", 1008.0)], ids=["22B", "175B", "1T"]
)
def test_sizes_are_those_of_the_names(name, billions):
    facts = gpt(name)
    assert facts.parameters / 1e9 == pytest.approx(billions, rel=1e-3)
    layout = facts.layout(1)
    assert layout.embed.numel + sum(block.numel for block in layout.blocks) + layout.head.numel == facts.parameters


def test_hardware_throughput_of_the_fitted_points():
    assert hardware(RUN_175B) == pytest.approx(PUBLISHED_175B, rel=0.005)
    assert hardware(RUN_1T) == pytest.approx(PUBLISHED_1T, rel=0.005)


def test_model_flops_are_three_quarters_of_hardware_flops_where_all_is_computed_again():
    name, strategy, batch = RUN_1T
    speed = throughput(gpt(name), batch).speed(strategy)
    assert speed.model_flops / speed.hardware_flops == pytest.approx(0.75, rel=0.01)


def test_with_one_constant_fitted_to_175b_the_throughput_of_1t_is_met_within_5_percent():
    low, high = 0.3, 0.6
    for _ in range(40):
        middle = (low + high) / 2
        below = hardware(RUN_175B, Efficiency(middle, 1.0)) < PUBLISHED_175B
        low, high = (middle, high) if below else (low, middle)
    assert hardware(RUN_1T, Efficiency(low, 1.0)) == pytest.approx(PUBLISHED_1T, rel=0.05)


def test_strong_scaling_of_1t_with_the_recipes_batch_on_the_whole_machine():
    efficiency = seconds("gpt_1t", recipe(8, 64, 2), 1600) / 3 / seconds("gpt_1t", recipe(8, 64, 6), 1600)
    assert efficiency == pytest.approx(STRONG_1T, abs=0.02)


def test_strong_scaling_depends_on_the_batch_which_is_not_published():
    """With five times the batch the bubble is too small to explain 87.05%."""
    efficiency = seconds("gpt_1t", recipe(8, 64, 2), 8016) / 3 / seconds("gpt_1t", recipe(8, 64, 6), 8016)
    assert 0.96 < efficiency < 0.98


@pytest.mark.parametrize(
    ("name", "tp", "pp", "few", "many", "batch"), [("gpt_175b", 4, 16, 2, 16, 640), ("gpt_1t", 8, 64, 2, 6, 1600)]
)
def test_weak_scaling_is_complete(name, tp, pp, few, many, batch):
    fewer = seconds(name, recipe(tp, pp, few), batch * few)
    assert fewer / seconds(name, recipe(tp, pp, many), batch * many) == pytest.approx(1.0, abs=0.01)


def test_the_throughput_of_22b_is_met_by_a_layout_inside_a_package():
    """Its layout is not published; of those on the fastest link some reach what was measured, and none much more."""
    found = [hardware(("gpt_22b", recipe(2, pp, 1), batch)) for pp in (2, 4, 8) for batch in (128, 256, 512)]
    assert max(found) == pytest.approx(PUBLISHED_22B, rel=0.05)


def test_published_runs_fit_their_devices():
    for name, strategy, batch in (RUN_175B, RUN_1T):
        memory = throughput(gpt(name), batch).memory.of(strategy)
        assert memory.total < 64e9


def test_throughput_falls_when_tensor_parallelism_leaves_the_package_and_then_the_node():
    rates = [hardware(("gpt_175b", recipe(tp, 16, 1), 640)) for tp in (2, 4, 8, 16, 32)]
    assert rates == sorted(rates, reverse=True)
    assert rates[3] < 0.8 * rates[2]


def test_more_micro_batches_make_the_bubble_smaller_and_more_stages_larger():
    def share(pp, batch):
        step = throughput(gpt("gpt_175b"), batch).of(recipe(4, pp, 1))
        return step.bubble / step.total

    assert [share(16, batch) for batch in (16, 64, 256)] == sorted((share(16, b) for b in (16, 64, 256)), reverse=True)
    assert share(8, 64) < share(16, 64) < share(32, 64)
    # (p - 1)/m of the time without a bubble, were all stages alike
    step = throughput(gpt("gpt_175b"), 64).of(recipe(4, 16, 1))
    passes = step.compute + sum(step.waits.values())
    assert step.bubble / passes == pytest.approx(15 / 64, rel=0.05)


def test_zero_1_costs_what_adding_gradients_does():
    """A scatter and a gather move what an all-reduce does, and a replica of 16 holds a 16th of the moments."""
    whole = recipe(4, 16, 16)
    plain = type(whole)(type(whole.parallel)(tp=4, pp=16, dp=16), 1, "fp16", "full")
    model = throughput(gpt("gpt_175b"), 10240)
    assert model.of(whole).reduction == pytest.approx(model.of(plain).reduction, rel=0.05)
    assert model.memory.of(whole).moments * 16 == pytest.approx(model.memory.of(plain).moments)


def test_with_the_batch_of_the_whole_machine_the_same_constants_fall_short():
    """How far the other reading of "global batch" is from what was published."""
    assert hardware(("gpt_175b", recipe(4, 16, 16), 640)) / PUBLISHED_175B == pytest.approx(0.72, abs=0.02)
    assert hardware(("gpt_1t", recipe(8, 64, 6), 1600)) / PUBLISHED_1T == pytest.approx(0.84, abs=0.02)


@pytest.mark.slow
def test_a_megatron_layer_sends_as_much_as_five_all_reduces_and_six_where_it_is_computed_again():
    """Each a scatter and a gather of tokens, which move on a ring what an all-reduce of all tokens does.

    The fifth are the two gathers by which a rank keeps its part alone of what the products read.
    """
    model = throughput(gpt("gpt_175b"), 640)
    all_reduce = 2 * 3 / 4 * 2 * 2048 * 12288
    for recompute, times in (("none", 5), ("full", 6)):
        strategy = recipe(4, 16, 16, recompute)
        table = model.communication.volume(strategy, model.memory.rank_parameters(strategy, 1))
        passes, layers = 40, 6
        sent = sum(count.wire_bytes for count in table["tp"].values())
        assert sent == pytest.approx(times * layers * passes * all_reduce, rel=0.1)
        # Between stages a rank's tokens as they are added up, in half precision.
        assert table["pp"]["send"].bytes == 2 * passes * 2 * 2048 * 12288 / 4


def test_zero_1_sends_as_much_as_adding_gradients():
    model = throughput(gpt("gpt_175b"), 640)
    strategy = recipe(4, 16, 16)
    parameters = model.memory.rank_parameters(strategy, 1)
    kinds = model.communication.volume(strategy, parameters)["shard"]
    sent = sum(count.wire_bytes for count in kinds.values())
    assert sent == pytest.approx(2 * 15 / 16 * 2 * parameters.numel, rel=1e-6)
