"""Write a trained model as one folder that opens anywhere. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("export")
