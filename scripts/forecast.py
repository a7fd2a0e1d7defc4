"""Forecast from a trained run. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("forecast")
