"""Make data with a domain's own simulator. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("simulate")
