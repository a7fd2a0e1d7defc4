"""Say what is installed and check that processes can talk. See --help."""

from sciml.app.cli import main

if __name__ == "__main__":
    main("doctor")
