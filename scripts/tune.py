"""Find the fastest strategy on this machine by short trainings. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("tune")
