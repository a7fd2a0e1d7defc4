"""A domain that lives in the tests alone plugs in: no line of sciml knows of it."""

from pathlib import Path

from sciml.testing.conformance import DomainConformance


class TestToy(DomainConformance):
    overrides = ("domain=toy",)
    config_dir = str(Path(__file__).parent / "toy" / "conf")
    falling = ("trainer.max_steps=60", "optim.lr=3e-3")

    def test_models_are_compared_and_planned(self, commanded, tmp_path, capsys):
        """Both take long for the other domains, where slow tests run them."""
        self.test_every_verb_uses_a_run("compare", commanded, tmp_path, capsys)
        self.test_every_verb_prepares_a_training("plan", tmp_path, capsys)
