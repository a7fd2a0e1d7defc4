"""Reference models: trained beside a run's own to judge it by, equal to it but for a few keys, on the same data.

``reference_models`` names them with the keys in which they differ, e.g.
``{coarse: {model: {ratios: [], budgets: []}}}``.
With ``seeds`` above 1 each of them, and the run's own model, is trained again from the seeds that follow. They lie in
the run's folder under ``reference_models/NAME-NUMBER``, are runs themselves, and continue when the run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sciml.distributed.world import World
from sciml.run.folder import RunFolder
from sciml.run.session import TrainingSession, say
from sciml.run.spec import RunOptions, RunSpec, with_overrides

OWN = "model"
"""Name of the run's own model."""


@dataclass(frozen=True)
class ReferenceModel:
    """Describes a model that is trained beside a run's own.

    Attributes:
        number: of its seed, counted from the run's own, which is 0.
        spec: of the run that it is.
    """

    name: str
    number: int
    spec: RunSpec

    def folder_in(self, run: RunFolder) -> RunFolder:
        """Returns its folder within that of the run; it may not exist yet."""
        return _folder(run, self.name, self.number)


def build_reference_models(spec: RunSpec) -> list[ReferenceModel]:
    """Builds the reference models of a run, all of the first seed first; further seeds of its own model are among them.

    Raises:
        ConfigError: where one cannot work, as for the run's own configuration.
    """
    differences = {OWN: {}, **spec.options.reference_models}
    models = []
    for name, number in _names(spec.options):
        differing = differences[name].items()
        overrides = {f"{group}.{key}": value for group, keys in differing for key, value in keys.items()}
        config = with_overrides(spec.config, overrides)
        config |= {"seed": spec.seed + number, "reference_models": {}, "seeds": 1}
        models.append(ReferenceModel(name, number, RunSpec.build(config)))
    return models


def train_reference_models(models: Sequence[ReferenceModel], run: RunFolder, world: World) -> bool:
    """Trains those that are not trained yet; False where a signal ended it early."""
    for model in models:
        say(world, f"reference model {model.name}" + f", seed {model.spec.seed}" * (model.number > 0))
        folder = model.folder_in(run)
        if not TrainingSession.start(model.spec, world, folder if folder.exists else None, path=folder.path).fit():
            return False
    return True


def reference_runs(run: RunFolder, options: RunOptions) -> dict[str, list[RunFolder]]:
    """Returns the runs of the reference models by name; further seeds of the run's own model are left out."""
    runs: dict[str, list[RunFolder]] = {}
    for name, number in _names(options):
        folder = _folder(run, name, number)
        if name != OWN and folder.exists:
            runs.setdefault(name, []).append(folder)
    return runs


def _names(options: RunOptions) -> Iterator[tuple[str, int]]:
    """Yields the name and the number of the seed, without those of the run itself."""
    for number in range(options.seeds):
        yield from ((name, number) for name in (OWN, *options.reference_models) if (name, number) != (OWN, 0))


def _folder(run: RunFolder, name: str, number: int) -> RunFolder:
    return RunFolder(run.path / "reference_models" / f"{name}-{number}")
