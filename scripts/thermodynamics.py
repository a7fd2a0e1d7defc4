"""Sample an alloy's order at many temperatures with a trained model. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("thermodynamics")
