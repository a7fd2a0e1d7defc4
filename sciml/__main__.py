"""The command ``sciml``: one verb and its keys, as the scripts of a checkout take them."""

from __future__ import annotations

import sys

import sciml
from sciml.app.cli import main as run
from sciml.app.cli import print_out
from sciml.app.verbs import SUMMARIES
from sciml.core.errors import nearest


def main() -> None:
    """Runs ``sciml VERB [key=value ...]``; exits with 2 where there is no such verb."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help", "help"):
        from sciml.app.help import overview

        print_out(overview())
    elif verb in ("-V", "--version", "version"):
        print_out(f"sciml {sciml.__version__}")
    elif verb in SUMMARIES:
        run(verb, arguments)
    else:
        hint = f"a verb comes first, e.g. sciml train {verb}" if "=" in verb else nearest(verb, SUMMARIES)
        print(f"error: there is no verb {verb!r}; {hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
