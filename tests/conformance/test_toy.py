"""A domain that lives in the tests alone plugs in: no line of sciml knows of it."""

from pathlib import Path

from sciml.testing.conformance import DomainConformance


class TestToy(DomainConformance):
    overrides = ("domain=toy",)
    config_dir = str(Path(__file__).parent / "toy" / "conf")
    falling = ("trainer.max_steps=60", "optim.lr=3e-3")
