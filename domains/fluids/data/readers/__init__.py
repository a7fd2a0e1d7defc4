"""Readers of flows as they really come: one lazily read source for each trajectory."""

from domains.fluids.data.readers.files import open_sources
from domains.fluids.data.readers.source import FlowSource

__all__ = ["FlowSource", "open_sources"]
