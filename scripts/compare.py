"""Compare a run's model with those trained beside it. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("compare")
