"""What holds for all tests and the processes they start."""

import gc
import os

# torch looks up the host name behind each connection to its store. Where no name server answers, that takes 10 s,
# while other processes give up: tests ask none, names come from /etc/hosts.
os.environ.setdefault("RES_OPTIONS", "attempts:0")
# Set before torch is imported, and inherited by all processes that tests start: what tests compute is too small to be
# shared among threads, which would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

# Tens of thousands of tests and modules stay alive: to look through them all for cycles every 700 objects takes a tenth
# of the time.
gc.set_threshold(100_000, 20, 20)

pytest_plugins = ["tests.reports"]

# `SCIML_CHECK_SHAPES=1 pytest` checks shapes in annotations; installed before anything of the suite is imported.
if os.environ.get("SCIML_CHECK_SHAPES") == "1":
    from tests import shapes

    shapes.install()


def pytest_collection_finish():
    """Looks through what is imported and collected for cycles no more."""
    gc.freeze()
