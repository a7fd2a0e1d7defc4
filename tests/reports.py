"""Trainings without their reports, for tests that only look at what was trained and scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def without_reports() -> Iterator[None]:
    """Draws no report at the end of a training or an evaluation: its figures take longer than a small training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sciml.report.run_report.draw_report", lambda folder, _, path=None: (path or folder.path) / "report.html"
        )
        yield


@pytest.fixture
def no_reports() -> Iterator[None]:
    """Draws no report during a test."""
    with without_reports():
        yield
