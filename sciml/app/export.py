"""Export of a trained model: one folder that opens on a machine that has neither the run nor its data.

It is laid out as on the Hugging Face Hub: ``model.safetensors``, ``config.json``, and ``README.md`` with the model
card. Beside them lies what every verb needs: ``run.json``, ``schema.json``, ``statistics.safetensors``, and the scores.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sciml.app.run_on_model import RunChoice
from sciml.core.command_line import command
from sciml.core.config import build, one_of
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_directory, read_json, write_json, write_text
from sciml.core.result import CommandResult
from sciml.domain.loading import load_domain
from sciml.domain.optional import ExportsToPrograms
from sciml.domain.protocol import RunResult
from sciml.report.model_card import ModelCard, model_card, score_table
from sciml.report.scores import Scores, headline_lead_of, time_text_of
from sciml.run.compose import Composition
from sciml.run.folder import RECORD, RunFolder
from sciml.run.loaded import CALIBRATION, SCHEMA, STATISTICS, find_checkpoint
from sciml.training.checkpoint_layout import MANIFEST
from sciml.training.whole_weights import MODEL, write_whole_weights

WEIGHTS = "model.safetensors"
KEPT = (SCHEMA, STATISTICS, CALIBRATION, "scores.json")
"""Files of the run that go along as they are, where they are there."""
PRIVATE = ("user", "machine", "command")
"""Facts about the origin that tell of a person and a place, and nothing of the model."""


@dataclass(frozen=True)
class ExportConfig(RunChoice):
    """Holds the keys of ``conf/export.yaml``."""

    out: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    to: str | None = None
    branch: str | None = None

    def __post_init__(self) -> None:
        if self.branch is not None and self.to is None:
            raise ConfigError("only another program needs one data set", key="branch", hint="leave it out, or name to=")


def run(composition: Composition) -> CommandResult:
    """Writes the folder, whole or not at all, and prints how it is used."""
    config = build(ExportConfig, composition.config)
    folder = config.folder()
    domain = folder.record["domain"]
    out = Path(config.out or Path("exports") / f"{domain}-{folder.path.name}")
    if out.exists():
        raise ConfigError(f"{out} is there already", key="out", hint="choose another name, or remove it first")
    checkpoint = find_checkpoint(folder, str(config.checkpoint))
    writers = load_domain(folder.record["config"]["domain"])
    programs = writers.programs if isinstance(writers, ExportsToPrograms) else {}
    if config.to is not None and not programs:
        raise ConfigError(f"there is no other program for a model of {domain}", key="to", hint="leave it out")
    if config.to is not None:
        one_of(config.to, programs, "to")
    with atomic_directory(out) as temporary:
        parameters = export_model(folder, checkpoint, temporary, getattr(torch, config.dtype))
        if config.to is not None:
            programs[config.to](temporary, config.branch)
    size = sum(file.stat().st_size for file in out.iterdir())
    text = [
        f"exported  {out}: {parameters:,} parameters, {size / 2**20:.1f} MiB",
        f"next      {command('evaluate', run=out)}",
        f"          python -c {shlex.quote(f'import sciml; print(sciml.load({json.dumps(str(out))}))')}",
    ]
    return CommandResult({"exported": str(out), "parameters": parameters, "bytes": size}, "\n".join(text))


def export_model(folder: RunFolder, checkpoint: Path, out: Path, dtype: torch.dtype) -> int:
    """Fills a folder with a run's model; returns the number of its parameters.

    Raises:
        DataError: where a file of the run is missing or corrupted.
    """
    written = write_whole_weights(checkpoint, out / WEIGHTS, dtype=dtype, prefix=MODEL)
    write_json(out / MANIFEST, {"step": written.step, "files": {WEIGHTS: written.sha256}})
    for name in KEPT:
        if (folder.path / name).exists():
            shutil.copyfile(folder.path / name, out / name)
    record = folder.record
    origin = {name: fact for name, fact in record.get("provenance", {}).items() if name not in PRIVATE}
    config = _portable(record["config"])
    write_json(out / RECORD, {**record, "config": config, "provenance": origin})
    write_json(out / "config.json", {"model_type": config["model"].get("kind"), **config["model"]})
    write_text(out / "README.md", _card_text(folder, config, written.parameters))
    return written.parameters


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration without the folders of this machine: a path of the user's own data keeps its name."""
    data = {name: value for name, value in config["data"].items() if name != "cache"}
    data = {name: _named(value) if name.endswith("path") else value for name, value in data.items()}
    free: dict[str, Any] = {"runs_dir": "runs", "resume": None, "init_from": None, "reference_models": {}}
    free |= {"freeze": [], "lora_rank": 0}  # changes of low rank are in the weights now
    return {**config, "data": data, **{name: value for name, value in free.items() if name in config}}


def _named(path: Any) -> Any:
    if isinstance(path, Mapping):
        return {name: _named(part) for name, part in path.items()}
    if isinstance(path, list):
        return [_named(part) for part in path]
    return Path(path).name if isinstance(path, str) and Path(path).is_absolute() else path


def _card_text(folder: RunFolder, config: Mapping[str, Any], parameters: int) -> str:
    """Returns the model card as Markdown, with the header that the Hub reads."""
    domain = load_domain(config["domain"])
    scores = folder.scores()
    schema = read_json(folder.path / SCHEMA, dict[str, Any])
    result = RunResult(
        directory=folder.path,
        record={**folder.record, "config": config},
        schema=schema,
        scores=scores,
        history=folder.history(),
        example={},
        baselines=domain.baselines,
        headline_lead_h=headline_lead_of(domain),
        time_text=time_text_of(domain, schema),
    )
    card: ModelCard = model_card(result)
    facts = {**card.facts, "Parameters": f"{parameters:,}"}
    lines = [
        "---",
        "library_name: sciml",
        f"tags: {json.dumps(['sciml', domain.name, str(config['model'].get('kind'))])}",
        "---",
        "",
        f"# {domain.name}: {folder.path.name}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text} |" for name, text in facts.items()),
        "",
    ]
    lines += score_table(Scores.of(result)) if scores else []
    lines += ["## Limits", "", *(f"- {limit}" for limit in card.limits), "", "## Use", "", "```python"]
    lines += ["import sciml", "", 'model = sciml.load("this folder")', "```", ""]
    return "\n".join(lines)
