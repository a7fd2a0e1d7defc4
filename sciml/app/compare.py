"""A run's model beside its reference models: scores case by case, costs, and confidence intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sciml.core.config import build, flat
from sciml.core.errors import ConfigError
from sciml.core.files import check_writable, read_json, write_json, write_text
from sciml.core.progress import track
from sciml.core.result import CommandResult, Output
from sciml.core.sentences import plain
from sciml.core.types import AtLeastOne, DeviceName
from sciml.data.source import GroupedSource
from sciml.data.staging import StagedParts
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import pick_device, use_threads
from sciml.domain.protocol import Predictor
from sciml.domain.score import Baseline
from sciml.forecast.evaluation import score_baselines, score_model
from sciml.parallel.config import ParallelConfig
from sciml.report.comparison import compare_models, draw_comparison, markdown_table
from sciml.report.scores import time_text_of
from sciml.run.compose import Composition
from sciml.run.costs import Step, inference_step, measure_in_turn, training_step
from sciml.run.folder import RunFolder
from sciml.run.loaded import LoadedRun, find_checkpoint, load_run
from sciml.run.reference_models import OWN, build_reference_models
from sciml.run.spec import spec_of_run
from sciml.training.checkpoint import CheckpointStore
from sciml.training.engine_config import EngineConfig


@dataclass(frozen=True)
class CompareConfig:
    """Holds the keys of ``conf/compare.yaml``.

    Attributes:
        run: one, which is compared with its reference models and baselines, or several, which are compared with one
            another: ``run=A run=B`` or ``run=[A,B]``.
        rounds: how often the cost of a step is measured; the models take turns.
        num_threads: CPU threads of the measurements.
    """

    run: str | list[str] = "latest"
    runs_dir: str = "runs"
    checkpoint: str | int = "best"
    rounds: AtLeastOne = 7
    num_threads: AtLeastOne | None = None
    device: DeviceName = "auto"
    output: Output = "text"


def run(composition: Composition) -> CommandResult:
    """Compares what is trained by now, and prints where the table and the pictures are."""
    config = build(CompareConfig, composition.config)
    use_threads(config.num_threads, "num_threads")
    names = [config.run] if isinstance(config.run, str) else config.run
    folders = [RunFolder.find(name, config.runs_dir) for name in dict.fromkeys(names)]
    if not folders:
        raise ConfigError("no run is named", key="run", hint="e.g. run=latest")
    if len(folders) == 1:
        return compare(_trained(folders[0]), folders[0].results / "comparison", config)
    names = [folder.path.name for folder in folders]
    trained = [(name, 0, folder) for name, folder in zip(names, folders, strict=True)]
    if len(set(names)) < len(names):
        trained = [(str(folder.path), 0, folder) for folder in folders]
    _refuse_other_cases(folders)
    path = Path(config.runs_dir) / "comparisons" / folders[0].record["domain"] / "-".join(names)
    return compare(trained, path, config)


def _refuse_other_cases(folders: Sequence[RunFolder]) -> None:
    """Refuses runs that are scored on other data than the first: their errors have nothing in common."""
    first = folders[0].record
    for folder in folders[1:]:
        if folder.record["domain"] != first["domain"]:
            raise ConfigError(
                f"{folder.path} is a run of domain={folder.record['domain']}, and {folders[0].path} of "
                f"domain={first['domain']}",
                key="run",
                hint="compare runs of one domain",
            )
        own, other = (flat(record["config"]["data"]) for record in (first, folder.record))
        different = sorted(key for key in {*own, *other} - SHUFFLED if own.get(key) != other.get(key))
        if different:
            raise ConfigError(
                f"{folder.path} was trained on other data than {folders[0].path}: data.{different[0]} is "
                f"{plain(other.get(different[0]))}, not {plain(own.get(different[0]))}",
                key="run",
                hint="evaluate both on the same data with data.path=",
            )


SHUFFLED = {"cache", "augment", "preload_gb", "max_memory_gb", "shares"}
"""Keys of data that change what is trained on, or how it is read, and not what is scored."""


def compare(trained: Sequence[tuple[str, int, RunFolder]], path: Path, config: CompareConfig) -> CommandResult:
    """Scores and measures trained models, the first of which the others are compared with; what is scored is kept.

    Args:
        trained: name, number of the seed, and folder of each model.
        path: where the comparison is written.
    """
    check_writable(path)
    mesh = Mesh.alone(pick_device(config.device))
    runs = {
        (name, number): load_run(run, checkpoint=str(config.checkpoint), mesh=mesh) for name, number, run in trained
    }
    weights = {f"{name}-{number}": find_checkpoint(run, str(config.checkpoint)) for name, number, run in trained}
    parts = StagedParts(path, {name: str(file.absolute()) for name, file in weights.items()}, ".json")
    cases = []
    for (name, number), run in runs.items():
        file = parts.path(f"{name}-{number}")
        if not file.exists():
            write_json(file, _cases(run, mesh, f"scoring {name}, seed {run.spec.seed}"))
        cases += [{"model": name, "seed": run.spec.seed, **row} for row in read_json(file, list[dict[str, Any]])]
    own = runs[trained[0][0], 0]
    baselines = own.task.baselines()
    for baseline, predict in baselines.items():
        file = parts.path(f"baseline-{baseline.name}")
        if not file.exists():
            write_json(file, _cases(own, mesh, f"scoring {baseline.name}", {baseline: predict}))
        cases += [
            {"model": baseline.name, "seed": own.spec.seed, **row} for row in read_json(file, list[dict[str, Any]])
        ]
    models = {name: run for (name, number), run in runs.items() if number == 0}
    costs = measure_costs(models, baselines, mesh, config.rounds)
    for name, cost in costs.items():
        if name not in models:
            cost |= {"parameters": 0, "train_steps": 0, "train_s": 0.0}
            continue
        run = runs[name, 0]
        cost["parameters"] = sum(p.numel() for p in run.model.parameters())
        cost["train_steps"] = run.spec.trainer.max_steps
        cost["train_s"] = cost["train_step_s"] * run.spec.trainer.max_steps
    document = compare_models(cases, costs)
    write_json(path / "comparison.json", document)
    time_text = time_text_of(own.spec.domain, own.splits.schema.to_dict())
    table = markdown_table(document, time_text)
    write_text(path / "comparison.md", table)
    pictures = draw_comparison(document, path, time_text)
    parts.remove()
    lines = [table, f"comparison  {path / 'comparison.json'}", *(f"picture     {picture}" for picture in pictures)]
    return CommandResult({"comparison": str(path / "comparison.json"), **document}, "\n".join(lines))


def _trained(folder: RunFolder) -> list[tuple[str, int, RunFolder]]:
    """Returns all models of a run that are trained to their end: name, number of the seed, folder."""
    trained = [(OWN, 0, folder)]
    for reference in build_reference_models(spec_of_run(folder)):
        run = reference.folder_in(folder)
        if reference.spec.trainer.max_steps in CheckpointStore(run.checkpoints).steps():
            trained.append((reference.name, reference.number, run))
    return trained


def _cases(
    run: LoadedRun, mesh: Mesh, what: str, baseline: Mapping[Baseline, Predictor] | None = None
) -> list[dict[str, Any]]:
    """Returns the scores of each test sample alone, of a run's model or of one baseline."""
    rows = []
    source = run.splits.test
    for case in track(range(len(source)), what, len(source)):
        batch = source.collate([source.sample(case, np.random.default_rng(0))])
        group = source.group(case) if isinstance(source, GroupedSource) else case
        if baseline is None:
            scores = score_model(run.task, run.model, [batch], mesh)
        else:
            (scores,) = score_baselines(run.task, [batch], mesh, baseline).values()
        for score in scores:
            rows.append({"case": case, "group": group, **score.to_row()})
    return rows


def measure_costs(
    runs: Mapping[str, LoadedRun], baselines: Mapping[Baseline, Predictor], mesh: Mesh, rounds: int
) -> dict[str, dict[str, float]]:
    """Measures the mean CPU seconds (elsewhere seconds) of a training step and of an inference step of one sample;
    baselines are not trained.
    """
    steps: dict[tuple[str, str], Step] = {}
    for name, run in runs.items():
        alone = replace(run.spec, parallel=ParallelConfig(), engine=EngineConfig())
        steps[name, "train_step_s"] = training_step(alone, run.task, run.splits, mesh, rounds)
        steps[name, "infer_step_s"] = inference_step(run, mesh)
    for baseline, predict in baselines.items():
        steps[baseline.name, "infer_step_s"] = inference_step(next(iter(runs.values())), mesh, predict)
    seconds = measure_in_turn(steps, mesh.world, rounds)
    names = [*runs, *(baseline.name for baseline in baselines)]
    return {name: {kind: seconds.get((name, kind), 0.0) for kind in ("train_step_s", "infer_step_s")} for name in names}
