"""List the runs that there are, compare or delete some of them. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("runs")
