"""Meshes show the right patches, and every picture draws, whatever the flow, the mesh and the scores are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from domains.fluids.data.boundary import OBSTACLE
from domains.fluids.data.schema import DataSet, FluidsSchema
from domains.fluids.figures import animation, panels
from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.figures.report import example_figures, fluids_figures
from domains.fluids.figures.skill import draw_skill, draw_skill_by_lead_time
from domains.fluids.figures.vorticity import vorticity
from domains.fluids.forecast.baselines import BASELINES
from domains.fluids.forecast.conservation import conservation_errors
from domains.fluids.forecast.example import FlowExample
from domains.fluids.forecast.metrics import RMSE, VRMSE
from domains.fluids.solver import Background, SolverGrid
from sciml.domain.protocol import NamedFigure, RunResult
from sciml.report.scores import Scores
from sciml.report.shading import Shading

PERIODIC, WALL, OPEN = (("periodic",) * 2, ("wall",) * 2, ("open",) * 2)
AIR = DataSet(
    ("dens", "uwnd", "wwnd", "theta"), (), (24, 48), 400.0, 400.0, 20.0, {"x": PERIODIC, "z": WALL}
)  # fmt: skip
CHANNEL = DataSet(("uwnd", "wwnd"), (OBSTACLE,), (16, 60), 0.05, 0.05, 0.1, {"x": OPEN, "z": WALL})
TALL = DataSet(("pressure",), (), (40, 10), 30.0, 30.0, 7200.0, {"x": PERIODIC, "z": PERIODIC})
BOTH = FluidsSchema({"air": AIR, "channel": CHANNEL}, "Synthetic waves, no flow")
MODEL = {"patch_size": 16, "ratios": [2, 2]}
PREDICTORS = ("persistence", "uniform_coarse", "uniform_fine")


def schema_of(data_set: DataSet) -> FluidsSchema:
    return FluidsSchema({"flow": data_set}, "Synthetic waves, no flow")


def example_of(
    data_set: DataSet, num_leads: int = 4, with_truth: bool = True, model: dict = MODEL, number: int = 0
) -> dict:
    """Waves that move on, a forecast with noise in it, and a mesh that is refined at random."""
    rng = np.random.default_rng(1)
    rows, columns = data_set.shape
    z, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns, endpoint=False), indexing="ij")
    frames = np.arange(num_leads + 1)[:, None, None, None]
    phase = np.arange(len(data_set.variables))[:, None, None]
    fields = np.sin(2 * np.pi * (x - 0.05 * frames) + phase) * np.cos(np.pi * z) + 0.1 * phase
    fields = fields * 0.01  # a density below zero is none
    values = {
        "data_set": np.array(number),
        "lead_times": data_set.interval * np.arange(1, num_leads + 1),
        "forecast": (fields[1:] + 0.002 * rng.standard_normal(fields[1:].shape)).astype(np.float32),
        "initial": fields[0].astype(np.float32),
    }
    if with_truth:
        values["truth"] = fields[1:].astype(np.float32)
    size = model["patch_size"]
    shape = np.array([-(-count // size) for count in data_set.shape])
    for level, ratio in enumerate(model["ratios"]):
        values[f"refined_{level}"] = rng.integers(0, 2, (num_leads, *shape)).astype(np.uint8)
        shape = shape * ratio
    if data_set.has_totals:
        background = Background.of(SolverGrid(columns, rows), 0.0)
        values["profiles"] = np.stack([background.dens, background.theta])
    if OBSTACLE in data_set.constants:
        values["fluid"] = np.ones(data_set.shape, np.uint8)
        values["fluid"][6:10, 10:14] = 0
    return values


def scores_of(schema: FluidsSchema, frames=(1, 2, 4), predictors=PREDICTORS, size: float = 0.4) -> list[dict]:
    return [
        {
            "variable": schema.score_name(name, variable),
            "lead_time_h": round(lead * data_set.interval / 3600, 12),
            **metric.to_row(),
            "value": size * (1 + lead / 4),
            "unit": "1",
            "baseline": {other: size * (1.2 + 0.3 * i + lead / 3) for i, other in enumerate(predictors)},
        }
        for name, data_set in schema.data_sets.items()
        for lead in frames
        for variable in data_set.variables
        for metric in (VRMSE, RMSE)
    ]


def result_of(schema: FluidsSchema, example: dict, scores: list[dict], model: dict = MODEL) -> RunResult:
    record = {"domain": "fluids", "config": {"model": model}}
    return RunResult(Path("runs/fluids/test"), record, schema.to_dict(), scores, [], example, BASELINES)


def drawn(figures, folder: Path) -> dict[str, Path]:
    return {figure.name: figure.render(folder / figure.name) for figure in figures}


def flow_of(data_set: DataSet, **options) -> FlowExample:
    found = FlowExample.of(schema_of(data_set), example_of(data_set, **options))
    assert found is not None
    return found


class TestMeshLines:
    def test_children_of_refined_patches_and_no_others(self):
        refined = np.zeros((1, 2, 3), bool)
        refined[0, 1, 0] = True
        coarse, fine = MeshLines((8, 12), (4, 2), (refined,)).levels(0)
        assert sorted(map(tuple, coarse.reshape(-1, 4))) == [(0, 4, 12, 4), (4, 0, 4, 8), (8, 0, 8, 8)]
        assert sorted(map(tuple, fine.reshape(-1, 4))) == [(0, 6, 4, 6), (2, 4, 2, 8)]

    def test_what_sticks_out_is_cut_off(self):
        refined = np.ones((1, 2, 2), bool)
        coarse, fine = MeshLines((5, 7), (4, 2), (refined,)).levels(0)
        for lines in (coarse, fine):
            assert lines[..., 0].max() <= 7
            assert lines[..., 1].max() <= 5
        assert (4, 5) in {tuple(end) for end in coarse.reshape(-1, 2)}
        assert not (fine[:, :, 1] == 6).all(-1).any()  # a line between children that both lie outside

    def test_each_forecast_has_the_mesh_of_its_own_state_but_the_last(self):
        refined = np.zeros((3, 1, 1), bool)
        refined[1] = True
        mesh = MeshLines((4, 4), (4, 2), (refined,))
        assert [len(mesh.levels(frame)[1]) for frame in range(4)] == [0, 2, 0, 0]

    def test_from_a_configuration(self):
        mesh = MeshLines.of(MODEL, example_of(AIR), AIR.shape)
        assert mesh is not None
        assert mesh.patch_sizes == (16, 8, 4)
        assert len(mesh.levels(0)) == 3
        assert MeshLines.of({"kind": "other", "patch_size": 8}, {}, AIR.shape) is None
        plain = MeshLines.of({"patch_size": 8, "ratios": []}, {}, AIR.shape)
        assert plain is not None
        assert len(plain.levels(2)) == 1

    def test_flags_of_another_grid_are_refused(self):
        with pytest.raises(ValueError, match="16 cells"):
            MeshLines.of(MODEL, example_of(AIR), (200, 48))


class TestExample:
    def test_is_of_the_data_set_that_it_names(self):
        for number, data_set in enumerate((AIR, CHANNEL)):
            found = FlowExample.of(BOTH, example_of(data_set, number=number))
            assert found is not None
            assert found.data_set == data_set
        assert FlowExample.of(BOTH, {}) is None

    def test_names_and_lead_times(self):
        example = flow_of(AIR)
        assert example.variables(2) == ["theta", "dens"]
        assert example.nearest_lead(41.0 / 3600) == 1
        assert example.nearest_lead(None) == 3
        assert example.long_name("theta") == "perturbation of potential temperature"
        assert flow_of(TALL).long_name("pressure") == "pressure"

    def test_vrmse_is_one_for_the_mean_of_the_truth_and_leaves_obstacles_out(self):
        example = flow_of(CHANNEL)
        assert example.truth is not None
        assert example.fluid is not None
        truth = example.truth[0, 0]
        mean = np.full(truth.shape, truth[example.fluid].mean())
        mean[~example.fluid] = 1e6
        assert example.vrmse(mean, truth) == pytest.approx(1.0)
        assert np.isnan(example.vrmse(mean, np.ones_like(truth)))

    def test_signed_quantities_are_centered(self):
        air = flow_of(AIR)
        shading = air.quantity("theta").shading(np.linspace(-1, 3, 1001))
        assert shading.low == -shading.high
        positive = replace(flow_of(TALL), truth=np.abs(flow_of(TALL).truth))
        shading = positive.quantity("pressure").shading(np.linspace(1, 3, 1001))
        assert 1 <= shading.low < 1.01


class TestConservation:
    def test_of_what_is_added(self):
        example = flow_of(AIR)
        assert example.profiles is not None
        states = np.stack([example.initial, example.initial])
        states[1, 0] += 0.01 * (example.profiles[0][:, None] + example.initial[0])
        found = conservation_errors(example, states)
        np.testing.assert_allclose(found["mass"], [0.0, 0.01], rtol=1e-9)
        assert found["energy"][0] == 0
        # Internal energy goes with rho^gamma, potential and kinetic with rho.
        assert 0.01 < found["energy"][1] < 1.01**1.41 - 1


@pytest.mark.parametrize(
    ("shape", "ratio", "stretched"), [((2, 200), 16, 6.25), ((200, 2), 1 / 8, 0.08), ((16, 60), 3.75, 1)]
)
def test_domains_too_narrow_to_be_seen_are_stretched(shape, ratio, stretched):
    from sciml.report.style import new_figure

    data_set = replace(CHANNEL, constants=(), shape=shape, dx=1.0, dz=1.0)
    assert panels.aspect(data_set) == pytest.approx(ratio)
    example = FlowExample.of(schema_of(data_set), example_of(data_set))
    axes = new_figure(3.0, 3.0).subplots()
    panels.FieldPanel(axes, example, Shading("gray", 0.0, 1.0), 3.0)
    assert axes.get_aspect() == pytest.approx(stretched)
    width, height = np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())
    assert width / (height * axes.get_aspect()) == pytest.approx(ratio)


class TestFieldPanel:
    def test_z_goes_up_obstacles_are_gray_and_proportions_true(self, tmp_path):
        from sciml.report.style import new_figure, save_png

        example = flow_of(CHANNEL)
        field = np.zeros(CHANNEL.shape)
        field[0] = 1.0
        figure = new_figure(6.0, 3.0)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        panels.FieldPanel(axes, example, Shading("gray", 0.0, 1.0), 6.0).show(field, 0)
        axes.set_axis_off()
        assert axes.get_aspect() == 1.0
        axes.set(xlim=(0, 3), ylim=(0, 0.8))
        axes.set_aspect("auto")
        axes.set_axis_on()
        axes.tick_params(length=0, labelleft=False, labelbottom=False)
        with Image.open(save_png(figure, tmp_path / "panel", dpi=100)) as image:
            pixels = np.asarray(image.convert("RGB")) / 255
        rows, columns = pixels.shape[:2]
        assert pixels[-8, columns // 2].min() > 0.95  # the bottom row is bright
        assert pixels[8, columns // 2].max() < 0.05
        inside = pixels[int(rows * (1 - 8 / 16)), int(columns * 12 / 60)]
        np.testing.assert_allclose(inside, to_rgb(panels.OBSTACLE_COLOR), atol=0.01)

    def test_lines_lie_where_the_patches_are(self):
        from sciml.report.style import new_figure

        example = flow_of(AIR)
        mesh = MeshLines.of(MODEL, example_of(AIR), AIR.shape)
        axes = new_figure(6.0, 3.0).add_subplot()
        panel = panels.FieldPanel(axes, example, Shading("gray", -1.0, 1.0), 6.0, mesh)
        panel.show(example.initial[0], 0)
        upright = [line for line in panel.lines[0].get_segments() if line[0, 0] == line[1, 0]]
        assert [line[0, 0] for line in upright] == pytest.approx([6.4, 12.8])  # 16 and 32 cells of 400 m, in km
        assert {len(line) for line in upright} == {2}
        assert max(end for line in upright for end in line[:, 1]) == pytest.approx(9.6)


class TestForecastFigure:
    @pytest.fixture
    def shown(self, monkeypatch):
        """Figures that would have been written."""
        figures = []
        monkeypatch.setattr(panels, "save_png", lambda figure, path, dpi: figures.append(figure))
        monkeypatch.setattr(animation, "draw_gif", lambda figure, *rest: figures.append(figure))
        return figures

    def test_shows_the_wanted_lead_time(self, shown):
        example = flow_of(AIR)
        assert example.truth is not None
        panels.draw_forecast(example, None, 39.0 / 3600, Path("forecast"))
        pictures = [axes.images[0] for axes in shown[0].axes if axes.images]
        theta = AIR.variables.index("theta")
        expected = [example.initial[theta], example.truth[1, theta], example.forecast[1, theta]]
        for picture, field in zip(pictures, [*expected, expected[2] - expected[1]], strict=False):
            np.testing.assert_allclose(picture.get_array(), field)
        error = next(axes.get_title() for axes in shown[0].axes if axes.get_title().startswith("error"))
        assert float(error.split()[-1]) == pytest.approx(example.vrmse(expected[2], expected[1]), rel=0.01)
        assert "40 s ahead" in shown[0].texts[-1].get_text()

    @pytest.mark.parametrize("draw", [panels.draw_forecast, animation.draw_animation])
    def test_a_forecast_that_has_run_away_does_not_wash_out_the_truth(self, shown, draw):
        example = flow_of(AIR)
        wild = replace(example, forecast=1e6 * example.forecast)
        draw(wild, None, *([None] if draw is panels.draw_forecast else []), Path("picture"))
        pictures = [axes.images[0] for axes in shown[0].axes if axes.images]
        *fields, error = pictures[: 4 if draw is panels.draw_forecast else 3]
        assert len({picture.get_clim() for picture in fields}) == 1
        assert fields[0].get_clim()[1] < 1
        assert error.get_clim()[0] == -error.get_clim()[1] < -1000

    def test_every_variable_moves_and_what_does_not_change_is_drawn_once(self, monkeypatch):
        moved = []
        monkeypatch.setattr(animation, "draw_gif", lambda figure, update, *rest: moved.append((figure, update)))
        example = flow_of(AIR)
        assert example.truth is not None
        animation.draw_animation(example, None, Path("movie"))
        ((figure, update),) = moved
        pictures = [axes.images[0] for axes in figure.axes if axes.images]
        assert len(pictures) == 3 * len(AIR.variables)
        changing = update(2)
        assert set(pictures) <= set(changing)
        for number, name in enumerate(example.variables(4)):
            at = AIR.variables.index(name)
            np.testing.assert_allclose(pictures[3 * number].get_array(), example.truth[1, at])
            np.testing.assert_allclose(pictures[3 * number + 1].get_array(), example.forecast[1, at])

    def test_variables_of_a_flat_domain_stand_side_by_side(self, shown):
        for data_set in (AIR, CHANNEL):
            panels.draw_forecast(flow_of(data_set), None, None, Path("forecast"))
        grids = [figure.axes[0].get_subplotspec().get_gridspec().get_geometry() for figure in shown]
        assert grids == [(4, 4), (4, 2)]
        names = [axes.get_title() for axes in shown[1].axes if axes.get_title().endswith("truth")]
        assert names == ["uwnd, truth", "wwnd, truth"]


def check(files: dict[str, Path]) -> None:
    for path in files.values():
        with Image.open(path) as image:
            assert min(image.size) > 200, path.name
            pixels = np.asarray(image.convert("RGB"))
            # Paper on all four edges: nothing is cut off.
            for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
                assert edge.min() > 250, path.name
            assert len(image.convert("RGB").quantize(64).getcolors()) > 15, path.name


ALL = {"skill", "skill_by_lead_time", "forecast", "vorticity", "animation", "spectra", "conservation"}
EITHER = pytest.mark.parametrize(
    "data_set", [pytest.param(AIR, marks=pytest.mark.slow, id="air"), pytest.param(CHANNEL, id="channel")]
)


def figures_of(data_set: DataSet) -> set[str]:
    flows = {"uwnd", "wwnd"} <= set(data_set.variables)
    return ALL - (set() if data_set.has_totals else {"conservation"}) - (set() if flows else {"vorticity"})


def test_all_figures_draw_the_most_telling_first(tmp_path):
    schema = schema_of(AIR)
    figures: list[NamedFigure] = list(fluids_figures(result_of(schema, example_of(AIR), scores_of(schema))))
    assert [figure.name for figure in figures] == [
        "skill", "skill_by_lead_time", "forecast", "vorticity", "animation", "spectra", "conservation",
    ]  # fmt: skip
    files = drawn(figures, tmp_path)
    check(files)
    with Image.open(files["animation"]) as movie:
        assert movie.n_frames == 5  # the initial state and four lead times
        assert movie.info["loop"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("data_set", [CHANNEL, TALL], ids=["an obstacle", "tall, periodic, hours"])
def test_other_flows_draw(data_set, tmp_path):
    schema = schema_of(data_set)
    example = example_of(data_set)
    files = drawn(fluids_figures(result_of(schema, example, scores_of(schema))), tmp_path)
    assert set(files) == figures_of(data_set)
    check(files)


@pytest.mark.slow
def test_several_data_sets_draw(tmp_path):
    files = drawn(fluids_figures(result_of(BOTH, example_of(CHANNEL, number=1), scores_of(BOTH))), tmp_path)
    assert set(files) == ALL - {"conservation"}
    check(files)


@EITHER
def test_a_forecast_without_truth_mesh_or_scores_draws(data_set, tmp_path):
    example = example_of(data_set, with_truth=False, model={"patch_size": 16, "ratios": []})
    files = drawn(fluids_figures(result_of(schema_of(data_set), example, [], {"kind": "other"})), tmp_path)
    assert set(files) == figures_of(data_set) - {"skill", "skill_by_lead_time"}
    check(files)


def test_one_step_is_no_motion():
    names = {figure.name for figure in example_figures(flow_of(AIR, num_leads=1), None, None)}
    assert names == {"forecast", "vorticity", "spectra", "conservation"}


@EITHER
def test_a_forecast_that_is_no_longer_finite_draws(data_set, tmp_path):
    schema, example = schema_of(data_set), example_of(data_set, num_leads=3)
    example["forecast"][2:] = np.inf
    example["forecast"][1, :, 3] = np.nan
    scores = scores_of(schema)
    for row in scores[-8:]:
        row["value"] = float("nan")
        row["baseline"]["uniform_fine"] = float("inf")
        row["baseline"]["persistence"] = None
    files = drawn(fluids_figures(result_of(schema, example, scores)), tmp_path)
    assert set(files) == figures_of(data_set)
    check(files)


@pytest.mark.slow
def test_air_at_rest_draws(tmp_path):
    example = example_of(AIR)
    for name in ("forecast", "truth", "initial"):
        example[name] = np.zeros_like(example[name])
    files = drawn(fluids_figures(result_of(schema_of(AIR), example, [])), tmp_path)
    assert set(files) == {"forecast", "vorticity", "animation", "spectra", "conservation"}


def test_without_scores_and_example_there_is_nothing():
    assert list(fluids_figures(result_of(BOTH, {}, []))) == []


def test_every_baseline_is_drawn(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("sciml.report.bars.save_png", lambda figure, path: shown.append(figure))
    draw_skill(Scores(scores_of(BOTH)), BOTH, tmp_path / "skill")
    for axes in shown[0].axes:
        marked = {label for label in axes.get_legend_handles_labels()[1]}
        assert marked == {"model", *(name.replace("_", " ") for name in PREDICTORS)}
        for marks in axes.collections:
            assert len(marks.get_offsets()) == len(axes.get_yticks())
    assert [axes.get_title(loc="left") for axes in shown[0].axes[:2]] == ["0.1 s ahead", "0.2 s ahead"]


def test_captions_tell_what_is_there():
    air = flow_of(AIR)
    told = {figure.name: figure.caption for figure in example_figures(air, None, None)}
    assert "mesh" not in " ".join(told.values())
    mesh = MeshLines.of(MODEL, example_of(AIR), AIR.shape)
    told = {figure.name: figure.caption for figure in example_figures(replace(air, truth=None), mesh, None)}
    assert "truth" not in " ".join(told.values()).lower()
    assert "refined" in told["forecast"]
    assert "gray" not in told["forecast"]


def test_data_without_units_are_not_labeled_in_meters_and_seconds(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("sciml.report.bars.save_png", lambda figure, path: shown.append(figure))
    monkeypatch.setattr("sciml.report.skill.save_png", lambda figure, path: shown.append(figure))
    bare = schema_of(replace(CHANNEL, units=("", "")))
    assert panels.length_unit(bare.data_sets["flow"]) == ("", 1.0)
    assert bare.time_text(2.5 / 3600) == "t = 2.5"
    scores = Scores(scores_of(bare))
    draw_skill(scores, bare, tmp_path / "skill")
    draw_skill_by_lead_time(scores, bare, tmp_path / "leads")
    texts = [text.get_text() for figure in shown for text in figure.findobj(Text)]
    assert any(text.startswith("t = ") for text in texts)
    assert not any(" s ahead" in text or "second" in text for text in texts)


def test_a_flow_that_turns_as_a_wheel_has_twice_its_rate_for_vorticity():
    x, z = np.meshgrid(np.arange(60) - 29.5, np.arange(16) - 7.5)
    winds = np.stack([-3.0 * z * CHANNEL.dz, 3.0 * x * CHANNEL.dx])
    example = FlowExample(data_set=CHANNEL, title="", lead_times=np.array([1.0]), forecast=winds[None], initial=winds)
    np.testing.assert_allclose(vorticity(example, winds), 6.0)
    still = replace(example, fluid=np.arange(16)[:, None] < np.full((16, 60), 8))
    assert not vorticity(still, winds)[8:].any()
