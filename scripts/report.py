"""Draw the figures and the report of a run. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("report")
