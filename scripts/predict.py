"""Say what a trained model predicts of structures in a file. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("predict")
