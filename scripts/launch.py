"""Start a training on a cluster with Slurm: print its batch script, or submit it. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("launch")
