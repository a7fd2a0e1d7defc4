"""A domain that lives in the tests alone plugs in: no line of sciml knows of it."""

from pathlib import Path

from sciml.testing.conformance import DomainConformance


class TestToy(DomainConformance):
    overrides = ("domain=toy",)
    config_dir = str(Path(__file__).parent / "toy" / "conf")
    falling = ("trainer.max_steps=60", "optim.lr=3e-3")

    def test_what_takes_long_for_other_domains(self, commanded, tmp_path, capsys):
        """Those have it in slow tests."""
        self.test_a_run_is_scored_and_reported_again_alike(commanded)
        self.test_every_verb_uses_a_run("compare", commanded, tmp_path, capsys)
        self.test_every_verb_prepares_a_training("plan", tmp_path, capsys)
