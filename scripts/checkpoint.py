"""Look into a checkpoint, verify its checksums, or convert it to one file. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("checkpoint")
