"""The command line of all scripts: it composes, runs one command, and prints its result or its error."""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from sciml.core.errors import ConfigError, SciMLError
from sciml.core.files import in_a_sentence
from sciml.core.result import CommandResult, Output
from sciml.distributed.launcher import launched, leave

if TYPE_CHECKING:
    from sciml.run.compose import Composition

SUMMARIES = {
    "train": "Train a model, score it on held-out data and write a report.",
    "evaluate": "Score a run on its test data beside the baselines, and draw its report.",
    "forecast": "Forecast from a trained run.",
    "predict": "Say what a trained model predicts of cases in a file, with their uncertainties.",
    "screen": "Search a space of candidates with a trained model, and rank what is found.",
    "compare": "Compare a run's model with those trained beside it: error, cost, confidence.",
    "report": "Draw the figures and the report of a run.",
    "import": "Turn a published model into a run that can be opened and fine-tuned.",
    "prepare": "Turn data as they come into one store for training.",
    "simulate": "Make data with a domain's own simulator.",
    "checkpoint": "Look into a checkpoint, verify its checksums, or convert it to one file of weights.",
    "plan": "Say what a training needs and how fast it is on a cluster, without running it.",
    "tune": "Find the fastest strategy on this machine by short trainings of those that a plan puts first.",
    "scaling": "Measure how the error falls with size and cost, and predict it for larger budgets.",
    "launch": "Start a training on a cluster with Slurm: print its batch script, or submit it.",
    "doctor": "Say what is installed and check that processes can talk.",
}
EXAMPLES = {
    "train": [
        "domain=climate",
        "domain=fluids",
        "domain=language data.path='texts/*.txt'",
        "experiment=climate_archive",
        "resume=latest",
        "trainer.max_steps=200 optim.lr=5e-4",
    ],
    "evaluate": ["run=latest", "run=latest data.path=other.zarr", "run=latest output=json"],
    "forecast": [
        "run=latest lead_time=72h",
        "run=latest lead_time=144h members=8 out=forecast.zarr",
        "run=latest data.path=analysis.grib lead_time=5d",
        "run=latest lead_time=200s init_time=3@100s",
    ],
    "predict": ["run=latest structures=alloys.extxyz", "run=latest structures='*.cif' out=predicted.extxyz"],
    "screen": ["run=latest elements=CoCuFeNiPd lattices=[fcc]", "run=latest elements=CrMnFeCoNi order=5 step=0.1"],
    "compare": ["run=latest", "run=latest rounds=15 num_threads=1"],
    "report": ["run=latest"],
    "import": [
        "climax=5.625deg.ckpt out=runs/climate/climax data.path=era5.zarr",
        "climax=5.625deg.ckpt out=runs/climate/climax mean=normalize_mean.npz std=normalize_std.npz",
    ],
    "prepare": ["domain=climate path=era5.nc out=era5.zarr", "domain=climate path=gs://bucket/era5.zarr grid=64x32"],
    "simulate": ["domain=climate days=30 out=simulation.zarr", "domain=fluids count=200 out=flows.nc"],
    "checkpoint": ["run=latest", "run=latest action=verify", "run=latest action=convert out=model.safetensors"],
    "plan": [
        "domain=climate model=vit_5b cluster=frontier devices=512 trainer.global_batch_size=512",
        "domain=materials model=gnn_1b cluster=h100 devices=64 parallel.tp=8 output=json",
    ],
    "tune": [
        "domain=climate devices=2 trials=12 steps=20",
        "domain=climate devices=2 model=vit_small precisions=[fp32] tolerance=3 output=json",
    ],
    "scaling": [
        "domain=climate",
        "domain=fluids sizes=[0.5,1,2] budgets=[1e12,2e12,4e12] target=1e16",
    ],
    "launch": [
        "nodes=2 cluster.devices_per_node=4 domain=climate",
        "cluster=frontier account=ABC123 nodes=64 time=02:00:00 trainer.global_batch_size=512 submit=true",
    ],
    "doctor": ["", "output=json"],
}


def main(verb: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command; returns when it is done, exits with 2 for bad input and with 1 for a failure."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(arguments):
        _print(help_text(verb))
        sys.exit(0)
    try:
        _run(verb, arguments)
    except SystemExit:
        raise
    except BaseException as error:
        # torch.distributed.checkpoint's own error, for one, is no Exception.
        _end(error)
    _leave_peers(0)


def _end(error: BaseException) -> NoReturn:
    """Ends with one sentence for what a user can mend, a traceback for a bug; of many processes only the first
    to fail speaks.
    """
    error = in_a_sentence(error)
    logging.getLogger("asyncio").disabled = isinstance(error, SciMLError)  # which would tell of tasks that failed along
    if isinstance(error, KeyboardInterrupt):
        if not _is_one_of_many() or launched().rank == 0:
            print("interrupted", file=sys.stderr)
        _leave_peers(130)
        sys.exit(130)
    if _is_one_of_many():
        from sciml.distributed.failure_report import report_failure

        _leave_peers(report_failure(error))
    if isinstance(error, SciMLError):
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    raise error


def _run(verb: str, arguments: list[str]) -> None:
    config_dir = _option(arguments, "--config-dir")
    composition = _compose(verb, _overrides([argument for argument in arguments if argument != "--cfg"]), config_dir)
    if "--cfg" in arguments:
        _print(_yaml(composition.config).rstrip())
        return
    _check_groups(composition)
    result: CommandResult | None = importlib.import_module(f"sciml.app.{verb}").run(composition)
    if result is not None:
        as_json = composition.config.get("output") == "json"
        _print(json.dumps(result.document, default=str) if as_json else result.text)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever reads, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _overrides(words: Sequence[str]) -> list[str]:
    """Returns words as ``key=value``: switches such as ``--dry-run``, and what is typed as ``--key value``.

    Raises:
        ConfigError: for ``key: value``.
    """
    found: list[str] = []
    skip = False
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        if skip:
            skip = False
        elif word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            skip = not equals and bool(after) and "=" not in after and not after.startswith(("-", "~"))
            value = after if skip else value if equals else "true"
            found.append(f"{key.replace('-', '_')}={value}")
        elif word.endswith(":") and "=" not in word:
            raise ConfigError(
                f"{word} {after}".strip() + " is no override", hint=f"write {word[:-1]}={after or 'VALUE'}"
            )
        else:
            found.append(word)
    return found


def _is_one_of_many() -> bool:
    try:
        return launched().size > 1
    except SciMLError:  # an environment that makes no sense is refused once, by whoever joins
        return False


def _leave_peers(code: int) -> None:
    if _is_one_of_many():
        leave(code)


def _compose(verb: str, arguments: list[str], config_dir: str | None) -> Composition:
    from sciml.core.config import one_of
    from sciml.run.compose import compose

    composition = compose(verb, arguments, config_dir)
    one_of(composition.config.get("output", "text"), get_args(Output), "output")
    return composition


def _check_groups(composition: Composition) -> None:
    """Refuses what is wrong whatever the domain, before torch is imported."""
    from sciml.run.early_checks import check_groups

    check_groups(composition.config)


def _option(arguments: list[str], name: str) -> str | None:
    """Takes ``--name VALUE`` or ``--name=VALUE`` out of the arguments."""
    from sciml.core.errors import ConfigError

    for position, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return arguments.pop(position).partition("=")[2]
        if argument == name:
            if position + 1 == len(arguments):
                raise ConfigError("a folder must follow", key=name, hint=f"{name} my_conf")
            del arguments[position]
            return arguments.pop(position)
    return None


def _yaml(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(dict(config))


def help_text(verb: str) -> str:
    """Returns what a command does, its keys with their defaults, the options of its groups, and examples;
    imports nothing.
    """
    from sciml.core.groups import CONF, options

    lines = [SUMMARIES[verb], "", f"usage: python scripts/{verb}.py [key=value ...] [--cfg] [--config-dir DIR]", ""]
    lines += ["examples:", *(f"  python scripts/{verb}.py {example}".rstrip() for example in EXAMPLES[verb]), ""]
    text = (CONF / f"{verb}.yaml").read_text()
    body, groups = _split_defaults(text)
    if "domain" in groups:
        groups += [group for group in ("data", "task", "model") if verb == "train"]
    if groups:
        lines.append("groups (group=option; a key inside is group.key=value):")
        lines += [f"  {group:<11}{', '.join(options(group))}" for group in groups if group != verb]
        lines.append("")
    lines += ["keys and their defaults:", *(f"  {line}" for line in body), ""]
    group = "cluster" if verb == "launch" else "domain"
    for option in sorted(set(options(verb)) & set(options(group))):
        own, _ = _split_defaults((CONF / verb / f"{option}.yaml").read_text())
        lines += [
            f"keys of {group}={option} and their defaults:",
            *(f"  {line}" for line in own),
            "",
        ]
    lines.append("--cfg prints the composed configuration and stops; --config-dir adds a folder of your own groups.")
    return "\n".join(lines)


def _split_defaults(text: str) -> tuple[list[str], list[str]]:
    """Returns the lines with keys, and the names of groups, of a primary configuration."""
    body, groups = [], []
    for line in text.splitlines():
        if line.startswith("  - ") and ":" in line:
            groups.append(line[4:].split(":")[0].strip())
        elif line.strip() and not line.startswith(("#", "defaults", "  - ")):
            body.append(line)
    return body, groups
