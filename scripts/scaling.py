"""Measure how the error falls with size and cost, and predict it for larger budgets. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("scaling")
