"""Turn data as they come into one store for training. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("prepare")
