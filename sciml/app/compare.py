"""A run's model beside its companions: scores case by case, what they cost, and what can be said with confidence."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sciml.core.config import build, positive
from sciml.core.files import write_json
from sciml.core.parts import Parts
from sciml.core.progress import track
from sciml.core.result import CommandResult
from sciml.data.source import GroupedSource
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import pick_device
from sciml.forecast.evaluation import score_model
from sciml.report.comparison import compare_models, draw_comparison, markdown_table
from sciml.run.folder import RunFolder
from sciml.run.loaded import TrainedRun, open_run
from sciml.run.reference_models import OWN, companions_of, place_of
from sciml.training.checkpoint import CheckpointStore


@dataclass(frozen=True)
class CompareConfig:
    """Keys of ``conf/compare.yaml``.

    Attributes:
        rounds: how often the cost of a step is measured; the models take turns.
        num_threads: CPU threads of the measurements.
    """

    run: str = "latest"
    runs_dir: str = "runs"
    checkpoint: str | int = "best"
    rounds: int = 7
    num_threads: int | None = None
    device: str = "auto"
    output: str = "text"
    changes: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        positive(self.rounds, "rounds", example=7)


def run(values: Mapping[str, Any]) -> CommandResult:
    """Compares what is trained by now, and says where the table and the pictures are."""
    config = build(CompareConfig, values)
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    folder = RunFolder.find(config.run, config.runs_dir)
    return compare(folder, config)


def compare(folder: RunFolder, config: CompareConfig) -> CommandResult:
    """Scores and measures all trained models of a run and its companions; what is scored already is kept."""
    mesh = Mesh.alone(pick_device(config.device))
    runs = {
        (name, repeat): open_run(run, checkpoint=str(config.checkpoint), mesh=mesh)
        for name, repeat, run in _trained(folder)
    }
    place = folder.path / "comparison"
    parts = Parts(place, {"checkpoint": config.checkpoint}, ".json")
    cases = []
    for (name, repeat), opened in runs.items():
        file = parts.folder / f"{name}-{repeat}.json"
        if not file.exists():
            write_json(file, _cases(opened, mesh, f"scoring {name}, seed {repeat}"))
        cases += [{"model": name, "repeat": repeat, **row} for row in json.loads(file.read_text())]
    costs = measure_costs({name: opened for (name, repeat), opened in runs.items() if repeat == 0}, mesh, config.rounds)
    for name, cost in costs.items():
        opened = runs[name, 0]
        cost["parameters"] = sum(p.numel() for p in opened.model.parameters())
        cost["train_steps"] = opened.experiment.trainer.max_steps
        cost["train_s"] = cost["train_step_s"] * opened.experiment.trainer.max_steps
    document = compare_models(cases, costs, metric=runs[OWN, 0].task.primary_metric)
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "comparison.json", document)
    table = markdown_table(document)
    (place / "comparison.md").write_text(table)
    pictures = draw_comparison(document, place)
    parts.remove()
    lines = [table, f"comparison  {place / 'comparison.json'}", *(f"picture     {picture}" for picture in pictures)]
    return CommandResult({"comparison": str(place / "comparison.json"), **document}, "\n".join(lines))


def _trained(folder: RunFolder) -> list[tuple[str, int, RunFolder]]:
    """All models of a run that are trained to their end: name, repeat, folder."""
    found = [(OWN, 0, folder)]
    for name, repeat, values in companions_of(folder.record["config"]):
        run = RunFolder(place_of(folder, name, repeat))
        if values["trainer"]["max_steps"] in CheckpointStore(run.checkpoints).steps():
            found.append((name, repeat, run))
    return found


def _cases(opened: TrainedRun, mesh: Mesh, what: str) -> list[dict[str, Any]]:
    """Scores of each test sample alone."""
    rows = []
    source = opened.splits.test
    for case in track(range(len(source)), what, len(source)):
        batch = source.collate([source.sample(case, np.random.default_rng(0))])
        group = source.group(case) if isinstance(source, GroupedSource) else case
        for score in score_model(opened.task, opened.model, [batch], mesh):
            rows.append({"case": case, "group": group, **vars(score)})
    return rows


def measure_costs(runs: Mapping[str, TrainedRun], mesh: Mesh, rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds (elsewhere seconds) of a training step and of an inference step of one sample, medians.

    Models take turns, round after round, so that whatever else the machine does disturbs them alike.
    """
    clock = time.process_time if mesh.device.type == "cpu" else time.perf_counter
    taken: dict[str, dict[str, list[float]]] = {name: {"train_step_s": [], "infer_step_s": []} for name in runs}
    for number in track(range(rounds + 1), "measuring steps", rounds + 1):
        for name, opened in runs.items():
            source, count = opened.splits.train, opened.experiment.trainer.global_batch_size
            samples = [source.sample(n % len(source), np.random.default_rng(n)) for n in range(count)]
            batch, one = (source.collate(some).to(mesh.device) for some in (samples, samples[:1]))
            steps = {"train_step_s": lambda o=opened, b=batch: o.task.loss(o.model.train(), b).loss.backward(),
                     "infer_step_s": lambda o=opened, b=one: o.task.predict(o.model.eval(), b)}  # fmt: skip
            for kind, step in steps.items():
                start = clock()
                with torch.set_grad_enabled(kind == "train_step_s"):
                    step()
                if mesh.device.type == "cuda":
                    torch.cuda.synchronize()
                if number:  # the first round only warms up
                    taken[name][kind].append(clock() - start)
            opened.model.zero_grad(set_to_none=True)
    return {name: {kind: float(np.median(times)) for kind, times in kinds.items()} for name, kinds in taken.items()}
