"""A domain that lives in the tests alone plugs in: no line of sciml knows of it, of its metric or of its baseline."""

import json
from pathlib import Path

from sciml.report import loss_curve
from sciml.run.folder import RunFolder
from sciml.testing.conformance import DomainConformance


class TestToy(DomainConformance):
    overrides = ("domain=toy",)
    config_dir = str(Path(__file__).parent / "toy" / "conf")
    falling = ("trainer.max_steps=60", "optim.lr=3e-3")

    def test_its_own_metric_is_judged_by_its_direction(self, tmp_path, capsys, monkeypatch):
        """A correlation is better when higher; the report draws the baseline in its own color."""
        drawn = []
        monkeypatch.setattr(
            loss_curve,
            "save_png",
            lambda figure, path, save=loss_curve.save_png: drawn.append(figure) or save(figure, path),
        )
        self._main("train", [*self._command(tmp_path), *self.falling])
        said = capsys.readouterr().out
        folder = RunFolder.find("latest", str(tmp_path))
        row = folder.scores()[0]
        assert (row["metric"], row["better"], row["unit"]) == ("correlation", "higher", "1")
        assert row["value"] > row["baseline"]["standing_still"]
        assert "Correlation 2 h ahead: better than standing still." in said
        assert 'class="won"' in (folder.path / "report.html").read_text()
        validated = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
        assert validated[-1]["skill_against_standing_still"] > 0
        (curve,) = [line for line in drawn[-1].axes[1].lines if line.get_label() == "against standing still"]
        assert (curve.get_color(), curve.get_marker()) == ("#2f6f4f", "h")
