"""The command line of all scripts: it composes, runs one command, and prints its result or its error."""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from sciml.core.command_line import CONFIG_DIR
from sciml.core.errors import ConfigError, SciMLError
from sciml.core.files import in_a_sentence
from sciml.core.progress import waiting
from sciml.core.result import CommandResult, Output
from sciml.distributed.launcher import launched, leave

if TYPE_CHECKING:
    from sciml.run.compose import Composition

HELP = {"-h", "--help"}
SILENT = {"plan": "planning", "launch": "checking the training"}
"""Verbs that tell nothing of what they do while they do it."""
SEVERAL_RUNS = ("compare", "runs")
"""Verbs that take several runs."""
MANY = {"-m", "--multirun"}


def main(verb: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command; returns when it is done, exits with 2 for bad input and with 1 for a failure."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if HELP & set(arguments):
        arguments, action = [word for word in arguments if word not in HELP], _help
    else:
        action = _run
    try:
        action(verb, arguments)
    except SystemExit:
        raise
    except BaseException as error:
        # torch.distributed.checkpoint's own error, for one, is no Exception.
        _end(error)
    _leave_peers(0)


def _help(verb: str, arguments: list[str]) -> None:
    from sciml.app.help import help_text

    config_dir = _option(arguments, "--config-dir")
    print_out(help_text(verb, arguments, config_dir))
    sys.exit(0)


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
        atexit.register(_say_no_more)
        sys.exit(error.exit_code)
    raise error


def _say_no_more() -> None:
    """Lets what dies with this process say nothing behind the sentence: tasks of zarr, say, that failed along."""
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def _run(verb: str, arguments: list[str]) -> None:
    config_dir = _option(arguments, "--config-dir")
    CONFIG_DIR.set(config_dir)
    arguments = _with_file(arguments)
    if MANY & set(arguments):
        _run_many(verb, [word for word in arguments if word not in MANY], config_dir)
        return
    composition = _compose(verb, _overrides([argument for argument in arguments if argument != "--cfg"]), config_dir)
    _check_groups(composition)
    if "--cfg" in arguments:
        print_out(_yaml(composition.config).rstrip())
        return
    with waiting("loading libraries") if _speaks() else nullcontext():
        command = importlib.import_module(f"sciml.app.{verb}")
    with waiting(SILENT[verb]) if verb in SILENT and _speaks() else nullcontext():
        result: CommandResult | None = command.run(composition)
    if result is not None:
        _print_result(result, as_json=composition.config.get("output") == "json")


def _run_many(verb: str, arguments: list[str], config_dir: str | None) -> None:
    """Runs one training after another, see :mod:`sciml.app.sweep`."""
    if verb != "train":
        raise ConfigError(f"{verb} runs once", key="--multirun", hint="only trainings are swept, with train -m")
    from sciml.run.combinations import combinations

    words = _overrides([argument for argument in arguments if argument != "--cfg"])
    found = combinations(words, config_dir)
    if "--cfg" in arguments:
        print_out("---\n".join(_yaml(one.composition.config) for one in found).rstrip())
        return
    with waiting("loading libraries") if _speaks() else nullcontext():
        from sciml.app.sweep import sweep
    _print_result(sweep(found), as_json="output=json" in words)


def _print_result(result: CommandResult, *, as_json: bool) -> None:
    print_out(json.dumps(result.document, default=str) if as_json else result.text)


def print_out(text: str) -> None:
    """Prints a text; a reader that goes away before its end, such as head, is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
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


def _speaks() -> bool:
    """Says whether this process tells what is being done: of many, the first."""
    return not _is_one_of_many() or launched().rank == 0


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

    composition = compose(verb, _with_one_run(verb, arguments), config_dir)
    one_of(composition.config.get("output", "text"), get_args(Output), "output")
    return composition


def _with_file(arguments: list[str]) -> list[str]:
    """Puts the keys of the file that ``--config`` names before what was typed, without those that were typed anew."""
    file = _option(arguments, "--config")
    if file is None:
        return arguments
    from sciml.run.overrides import read_arguments

    typed = {argument.partition("=")[0] for argument in arguments}
    return [*(each for each in read_arguments(Path(file)) if each.partition("=")[0] not in typed), *arguments]


def _with_one_run(verb: str, arguments: list[str]) -> list[str]:
    """Returns arguments in which runs that are named one by one are one list.

    Raises:
        ConfigError: the verb takes one.
    """
    values = [argument.removeprefix("run=") for argument in arguments if argument.startswith("run=")]
    if len(set(values)) < 2:
        return arguments
    if verb not in SEVERAL_RUNS:
        hint = f"only {' and '.join(SEVERAL_RUNS)} take several"
        raise ConfigError(f"{verb} takes one run, got {' and '.join(values)}", key="run", hint=hint)
    return [*(argument for argument in arguments if not argument.startswith("run=")), f"run=[{','.join(values)}]"]


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
                raise ConfigError("a name must follow", key=name, hint=f"{name} NAME")
            del arguments[position]
            return arguments.pop(position)
    return None


def _yaml(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(dict(config))
