"""Say what a training needs and how fast it is on a cluster, without running it. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("plan")
