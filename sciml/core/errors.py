"""Defines the errors that a user may see: one sentence each, and the exit code of the program.

Bad input (configuration or data) exits with 2, a failure of the run itself with 1.
Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sciml.core.installation import install


class SciMLError(Exception):
    """Is the base of all errors that are shown to the user as one sentence, without a traceback."""

    exit_code: int = 1


class ConfigError(SciMLError):
    """Says that a configuration cannot work.

    Args:
        message: what is wrong, as a sentence without its final stop. The key is its subject where it begins with
            ``must``: "task.members must be at least 1, got 0"; else it stands before it: "run: there is no run".
        key: the configuration key it concerns, e.g. ``trainer.max_steps``.
        hint: a value that would work.
    """

    exit_code = 2

    def __init__(self, message: str, *, key: str | None = None, hint: str | None = None) -> None:
        self.message, self.key, self.hint = message, key, hint
        where = "" if not key else f"{key} " if message.startswith("must ") else f"{key}: "
        advice = f"; {hint}" if hint else ""
        super().__init__(f"{where}{message}{advice}")


class DataError(SciMLError):
    """Says that data cannot be used; the message names the file, the variable and the time."""

    exit_code = 2


class UnwritableError(SciMLError):
    """Says that a file or folder cannot be made where it is wanted: there is no permission, or no folder.

    Args:
        path: what is wanted.
        reason: why it cannot be.
    """

    exit_code = 2

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"could not write {path}: {reason}; work in a folder of your own, or name one")


class MissingExtraError(SciMLError):
    """Says that an optional package is needed and not installed.

    Args:
        package: the name that is imported.
        extra: the extra of this project that installs it.
        purpose: what the package is needed for, e.g. ``"to read GRIB files"``.
    """

    exit_code = 2

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{package} is needed {purpose}; install it with: {install(extra)}")


class RunError(SciMLError):
    """Says that a run failed on the way: not a number, a full disk, a lost process."""

    exit_code = 1


MANY_NAMES = 40
"""So many names are listed at most."""
RENAMED = {"companions": "reference_models", "repeats": "seeds", "seam_filter": "edge_filter"}
"""Keys that users may remember, and what they are called now."""
ELSEWHERE = {
    "epochs": "max_steps", "steps": "max_steps", "num_steps": "max_steps", "iterations": "max_steps",
    "batch_size": "global_batch_size", "batch": "global_batch_size", "learning_rate": "lr", "optimizer": "optim",
    "gpu": "cuda", "gpus": "devices", "workers": "num_workers", "threads": "num_threads", "dtype": "precision",
    "weather": "climate", "era5": "climate", "alloys": "materials", "atoms": "materials", "molecules": "materials",
    "fluid": "fluids", "flow": "fluids", "flows": "fluids", "cfd": "fluids", "text": "language", "llm": "language",
}  # fmt: skip
"""Words of other programs and people, with those that are used here."""


def nearest(name: str, known: Iterable[str], within: str = "") -> str:
    """Returns a hint that offers the known name nearest to a misspelled one, or all of them if none is near; of very
    many the first.

    Args:
        within: group in which the names stand, by which the nearest is told as it is typed.
    """
    names = sorted(known)
    more = f" and {len(names) - MANY_NAMES} more" if len(names) > MANY_NAMES + 3 else ""
    listed = ", ".join(names[:MANY_NAMES] if more else names)
    return close_match(name, names, within=within) or (f"known: {listed}{more}" if names else "nothing is known here")


def close_match(name: str, known: Iterable[str], *, exact: bool = False, within: str = "") -> str | None:
    """Returns a hint that offers a renamed key's new name, or the known name nearest to a misspelled one, if any.

    Args:
        known: names, which may be dotted; one whose last part is the name comes first.
        exact: whether only such a name is offered, and no misspelled one.
        within: group in which the names stand.
    """
    names = sorted(known)
    here = (RENAMED | ELSEWHERE).get(name)
    inside = [other for other in names if other.rpartition(".")[2] in (name, here)]
    close = inside or [] if exact else inside or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not close:
        return None
    best = min(close, key=len)
    return f"did you mean {f'{within}.{best}' if within else best!r}?"
