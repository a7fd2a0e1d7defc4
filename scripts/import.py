"""Turn a published model into a run that can be opened and fine-tuned. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("import")
