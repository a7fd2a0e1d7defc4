"""The pictures of a report on flows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from domains.fluids.data.schema import FluidsSchema
from domains.fluids.figures.animation import draw_animation
from domains.fluids.figures.mesh_lines import MeshLines
from domains.fluids.figures.panels import draw_forecast
from domains.fluids.figures.skill import draw_skill, draw_skill_by_lead_time
from domains.fluids.figures.spectra import draw_plane_spectra, has_spectra
from domains.fluids.figures.vorticity import draw_vorticity, has_vorticity
from domains.fluids.forecast.conservation import draw_conservation
from domains.fluids.forecast.example import FlowExample
from domains.fluids.forecast.metrics import VRMSE
from sciml.domain.protocol import NamedFigure, RunResult
from sciml.report.error_against_cost import draw_error_against_cost
from sciml.report.scores import Scores

MIN_FRAMES = 3


def fluids_figures(result: RunResult) -> Iterator[NamedFigure]:
    """Yields every picture that the scores and the example of a run allow, the most telling first.

    ``result.example`` holds what :func:`domains.fluids.forecast.example_rollout.forecast_example` gives.
    """
    schema = FluidsSchema.from_dict(result.schema)
    scores = Scores.of(result)
    yield from _cost_figures(scores, result.costs, schema)
    yield from _skill_figures(scores, schema)
    example = FlowExample.of(schema, result.example)
    if example is not None:
        model = (result.record.get("config") or {}).get("model") or {}
        mesh = MeshLines.of(model, result.example, example.data_set.shape)
        yield from example_figures(example, mesh, scores.main_lead_time)


def _cost_figures(
    scores: Scores, costs: Mapping[str, Mapping[str, float]], schema: FluidsSchema
) -> Iterator[NamedFigure]:
    if scores.lead_times(VRMSE) and len(costs) > 1:
        trained = sum("training_s" in cost for cost in costs.values()) > 1
        below = " and, below, what the training has cost. Solvers on coarser grids need no training" if trained else ""
        yield NamedFigure(
            "error_against_cost",
            "Error against cost",
            "VRMSE on the test flows, mean over variables, against what one step of a sample costs (measured in turn)"
            f"{below}. Whatever lies above the dashed line costs more than something that is better.",
            partial(draw_error_against_cost, scores, VRMSE, costs, schema.title, lead_text=schema.time_text),
        )


def _skill_figures(scores: Scores, schema: FluidsSchema) -> Iterator[NamedFigure]:
    leads = scores.lead_times(VRMSE)
    if leads:
        yield NamedFigure(
            "skill",
            "Beside the baselines",
            "VRMSE on the test flows, the root mean squared error over the standard deviation of the truth in space: "
            "0 is perfect, 1 (dashed) as bad as the mean of the truth. A bar that ends left of a mark beats that "
            "baseline.",
            partial(draw_skill, scores, schema),
        )
    if len(leads) > 1:
        yield NamedFigure(
            "skill_by_lead_time",
            "Skill against lead time",
            "VRMSE on the test flows (lower is better) as forecasts go on from their own states. Above the dashed line "
            "the mean of the truth would be a better forecast.",
            partial(draw_skill_by_lead_time, scores, schema),
        )


def example_figures(example: FlowExample, mesh: MeshLines | None, lead_hours: float | None) -> Iterator[NamedFigure]:
    """Yields pictures of one forecast.

    Args:
        mesh: of the model; None draws none.
        lead_hours: the lead time to show where only one is shown; None takes the last.
    """
    has_truth = example.truth is not None
    lines = ""
    if mesh is not None:
        lines = " Lines are the patches of the model's mesh" + (", finer where it refined." if mesh.refined else ".")
    yield NamedFigure(
        "forecast",
        "One forecast, variable by variable",
        ("Initial state, truth, forecast and error" if has_truth else "Initial state and forecast")
        + (" of one flow; all but the errors" if has_truth else " of one flow; both")
        + " share one color scale"
        + (", obstacles are gray." if example.fluid is not None else ".")
        + lines,
        partial(draw_forecast, example, mesh, lead_hours),
    )
    if has_vorticity(example):
        yield NamedFigure(
            "vorticity",
            "Vorticity and streamlines",
            "How fast the air turns (orange counterclockwise), and lines along the wind"
            + (", in truth and forecast in the same colors." if has_truth else "."),
            partial(draw_vorticity, example, lead_hours),
        )
    if len(example.lead_times) + 1 >= MIN_FRAMES:
        yield NamedFigure(
            "animation",
            "The forecast in motion",
            "The same flow from its initial state to the last lead time, variable by variable"
            + (": truth, forecast, and the error of the forecast" if has_truth else "")
            + ("." if example.last_compared == len(example.lead_times) - 1 else ", gray once the flow has ended.")
            + lines,
            partial(draw_animation, example, mesh),
        )
    if has_spectra(example):
        below = (
            " Where a forecast falls below the dashed truth of its lead time it has smoothed these scales away, where "
            "it lies above it has made them up."
        )
        yield NamedFigure(
            "spectra",
            "Which scales survive",
            "Power by wavenumber in the plane, small scales at the right"
            + (" (dotted: one cycle per patch of the mesh)." if mesh is not None else ".")
            + below * has_truth,
            partial(draw_plane_spectra, example, mesh),
        )
    if example.profiles is not None and example.data_set.has_totals:
        yield NamedFigure(
            "conservation",
            "Mass and energy",
            "By which part of its initial amount the mass and the energy (kinetic, internal and potential) of the same "
            "flow have changed, up or down."
            + " A forecast far above the truth makes or loses what the flow keeps."
            * has_truth,
            partial(draw_conservation, example),
        )
