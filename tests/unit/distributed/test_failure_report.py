"""Which errors are of a process's own, and which come of another's end."""

import errno

import pytest
from torch.distributed import DistNetworkError

from sciml.core.errors import ConfigError, RunError
from sciml.distributed.failure_report import _is_consequence

RESET = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer.")


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "consequence"),
    [
        (RESET, True),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1, remote process exited"), True),
        (DistNetworkError("timed out"), True),
        (BrokenPipeError("Broken pipe"), True),
        (caused(RunError("lost contact with another process"), RESET), True),
        (RunError("the loss is not finite"), False),
        (ConfigError("unknown key", key="gloo"), False),
        (caused(RunError("could not write"), OSError(errno.ENOSPC, "No space left on device")), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("nccl"), False),
    ],
)  # fmt: skip
def test_errors_of_communication_are_consequences(error, consequence):
    assert _is_consequence(error) == consequence
