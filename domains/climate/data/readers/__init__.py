"""Readers of weather data as it really comes."""

from domains.climate.data.readers.source import Source, open_source

__all__ = ["Source", "open_source"]
