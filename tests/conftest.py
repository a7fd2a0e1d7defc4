"""What holds for all tests and the processes they start."""

import os

# torch looks up the host name behind each connection to its store. Where no name server answers, that takes 10 s,
# while other processes give up: tests ask none, names come from /etc/hosts.
os.environ.setdefault("RES_OPTIONS", "attempts:0")
# Set before torch is imported, and inherited by all processes that tests start: what tests compute is too small to be
# shared among threads, which would only wait for one another.
os.environ["OMP_NUM_THREADS"] = "1"

# `SCIML_CHECK_SHAPES=1 pytest` checks shapes in annotations; installed before anything of the suite is imported.
if os.environ.get("SCIML_CHECK_SHAPES") == "1":
    from tests import shapes

    shapes.install()
