"""Train a model, score it on held-out data and write a report. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("train")
