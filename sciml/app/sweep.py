"""Sweeps: ``train -m optim.lr=1e-3,3e-3 model=vit_tiny,unet_tiny`` trains every combination, one after another.

All combinations are checked before the first begins. One that fails is noted, and the others go on. At the end one
table and one picture compare the runs; both lie under ``runs/sweeps``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from sciml.app import train
from sciml.core.command_line import quoted
from sciml.core.errors import ConfigError, SciMLError
from sciml.core.files import write_json, write_text
from sciml.core.outputs import numbered_folder
from sciml.core.progress import track
from sciml.core.result import CommandResult
from sciml.distributed.launcher import launched
from sciml.report.runs import RunSummary
from sciml.report.sweep import best_of, draw_sweep, labels_of, sweep_text
from sciml.run.combinations import Combination
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder, new_path
from sciml.run.spec import RunSpec


def sweep(found: Sequence[Combination]) -> CommandResult:
    """Trains every combination, and compares them.

    Raises:
        ConfigError: for what cannot work, before anything is trained; and for a sweep over several processes.
    """
    if launched().size > 1:
        raise ConfigError(
            "a sweep is started as one process", key="--multirun", hint="start its trainings one by one with torchrun"
        )
    for one in track(found, "checking trainings"):
        RunSpec.build(one.composition.config)
    options = found[0].composition.config
    folder = numbered_folder(Path(options["runs_dir"]) / "sweeps")
    runs, keys, failures = [], [], []
    for number, one in enumerate(found, 1):
        name = f"{options['run'] or f'sweep-{folder.name}'}-{number:02d}"
        print(f"[{number}/{len(found)}] {one.label}", file=sys.stderr, flush=True)
        path = new_path(options["runs_dir"], RunSpec.build(one.composition.config).domain.name, name)
        try:
            train.run(_named(one.composition, name))
        except SciMLError as error:
            failures.append({"keys": one.label, "error": str(error)})
            print(f"failed: {error}", file=sys.stderr, flush=True)
        if (path / "run.json").exists():
            runs.append(RunSummary.of(RunFolder(path)))
            keys.append(one.keys)
        _write(folder, runs, keys, failures)
    picture = draw_sweep(runs, keys, folder / "sweep") if runs else None
    return _result(folder, runs, keys, failures, picture)


def _named(composition: Composition, name: str) -> Composition:
    config = {**composition.config, "run": name}
    return Composition(
        config, composition.overrides, (*composition.arguments, f"run={quoted(name)}"), composition.selected
    )


def _write(
    folder: Path, runs: Sequence[RunSummary], keys: Sequence[Mapping[str, str]], failures: Sequence[dict[str, str]]
) -> None:
    rows = [
        {
            "keys": given,
            "run": str(run.path),
            "state": run.state,
            "against_best": run.against_best,
            "scores": run.values,
        }
        for given, run in zip(keys, runs, strict=True)
    ]
    write_json(folder / "sweep.json", {"runs": rows, "failed": list(failures)})
    if runs:
        write_text(folder / "sweep.txt", f"{sweep_text(runs, keys)}\n")


def _result(
    folder: Path,
    runs: Sequence[RunSummary],
    keys: Sequence[Mapping[str, str]],
    failures: Sequence[dict[str, str]],
    picture: Path | None,
) -> CommandResult:
    lines = [sweep_text(runs, keys)] if runs else []
    lines += ["", *(f"failed   {failure['keys']}: {failure['error']}" for failure in failures)]
    best = best_of(runs)
    if best is not None:
        lines.append(f"best     {runs[best].path}, {labels_of(keys)[best]}")
    lines += [f"table    {folder / 'sweep.txt'}", *([f"picture  {picture}"] if picture else [])]
    document = {
        "sweep": str(folder),
        "runs": [
            {"keys": given, "run": str(run.path), "scores": run.values} for given, run in zip(keys, runs, strict=True)
        ],
        "best": None if best is None else str(runs[best].path),
        "failed": list(failures),
        "pictures": [str(picture)] if picture else [],
    }
    return CommandResult(document, "\n".join(lines))
