"""SciML: a scientific foundation-model suite."""

__version__ = "0.1.0"
