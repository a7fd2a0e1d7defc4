"""Score a run on its test data beside the baselines, and draw its report. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("evaluate")
