"""Spoiled input of every kind ends well or in one sentence: never in a traceback, a crash, a hang or all of the memory.

Each case runs in a process of its own that is forked from this one, so that a crash is a result.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import signal
import traceback
import warnings
from pathlib import Path

import pytest

from sciml.core.errors import SciMLError
from tests.fuzz.cases import KINDS, Bases, other_run_folder

SEED = 15
MEMORY_BYTES = 3 * 2**30
SECONDS = 20
LONGEST = 3000
CASES = [(kind, number) for kind, count in KINDS.items() for number in range(count)]
SAMPLE = random.Random(SEED).sample([case for case in CASES if case[0] is not other_run_folder], 40)
KNOWN = {"weather_file 82": "killed by SIGALRM"}
"""What libraries do that nobody can prevent: HDF5's own never comes back from a header with a wrong byte."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return Bases(tmp_path_factory.mktemp("bases"))


def outcome(kind, number, bases, folder) -> str:
    """Tries a case in this process; returns what was wrong with the answer, or nothing."""
    said = io.StringIO()
    draw = random.Random(f"{SEED} {kind.__name__} {number}")
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind(draw, bases, folder)
    except SciMLError as error:
        return "" if is_sentence(str(error)) else f"no sentence: {error}"
    except SystemExit as ended:
        last = (said.getvalue().strip().splitlines() or [""])[-1]
        good = ended.code in (0, None) or (ended.code in (1, 2) and last.startswith("error: "))
        return "" if good and len(last) < LONGEST else f"exit {ended.code}: {said.getvalue()[-2000:]}"
    except BaseException:
        return traceback.format_exc()
    leftovers = [str(path) for path in folder.rglob("ran")]
    return f"it ran {leftovers}" if leftovers else ""


def is_sentence(text: str) -> bool:
    return bool(text) and len(text) < LONGEST and "Traceback" not in text


def forked(kind, number, bases, folder) -> str:
    """Tries a case in a process of its own, with little time and memory."""
    mine, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(mine)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a hang in a library does not come back to Python
        signal.alarm(SECONDS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        os.chdir(folder)
        result = json.dumps(outcome(kind, number, bases, folder))
        os.write(theirs, result.encode()[:60_000])
        os._exit(0)
    os.close(theirs)
    with open(mine, encoding="utf-8", errors="replace") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return json.loads(answer) if answer else f"ended with {status} and no word"


def tried(cases, bases, tmp_path) -> dict[str, str]:
    """Tries cases and returns what was wrong with the answers, by case."""
    for kind, number in cases:  # what they are made of is made once, in this process
        with contextlib.suppress(BaseException):
            kind(random.Random(f"{SEED} {kind.__name__} {number}"), Recorder(bases), tmp_path)
    wrong = {}
    for kind, number in cases:
        folder = tmp_path / f"{kind.__name__}-{number}"
        folder.mkdir()
        name, problem = f"{kind.__name__} {number}", forked(kind, number, bases, folder)
        if problem and KNOWN.get(name) != problem:
            wrong[name] = problem
    return wrong


class Asked(Exception):  # noqa: N818
    """Ends a case when it has asked for what it spoils."""


class Recorder:
    """Makes what a case asks for, and ends the case."""

    def __init__(self, bases: Bases) -> None:
        self.bases = bases

    def __getattr__(self, name):
        def make(*arguments):
            getattr(self.bases, name)(*arguments)
            raise Asked

        return make


def report(wrong: dict[str, str], count: int) -> str:
    lines = [f"{count - len(wrong)} of {count} cases are answered well"]
    return "\n".join([*lines, *(f"--- {case}\n{problem}" for case, problem in wrong.items())])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_sample_is_answered_well(bases, tmp_path):
    wrong = tried(SAMPLE, bases, tmp_path)
    assert not wrong, report(wrong, len(SAMPLE))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_case_is_answered_well(kind, bases, tmp_path):
    cases = [case for case in CASES if case[0] is kind]
    wrong = tried(cases, bases, tmp_path)
    assert not wrong, report(wrong, len(cases))
