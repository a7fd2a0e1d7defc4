"""Offers what ``import sciml`` has: trained models, trainings and plans for notebooks and scripts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.core.errors import RunError
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import pick_device
from sciml.domain.forecasting import Forecasts
from sciml.domain.loading import load_domain
from sciml.domain.optional import InPython
from sciml.run.compose import compose
from sciml.run.folder import RunFolder
from sciml.run.overrides import arguments
from sciml.run.trained_model import ForecastModel, TrainedModel

if TYPE_CHECKING:
    import pandas as pd


def load(
    run: str | Path = "latest", *, checkpoint: str | int = "best", device: str = "auto", runs_dir: str | Path = "runs"
) -> Any:
    """Loads a trained model.

    Args:
        run: a run's folder or name, ``latest``, the latest of a domain (``climate/latest``), the folder of an exported
            model, or the name of one that comes with the project (``models/climate``).
        checkpoint: ``best``, ``latest`` or a step.
        device: ``auto``, ``cpu``, ``cuda``, ...
        runs_dir: where names are looked up.

    Returns:
        A :class:`TrainedModel`; of climate and fluids a :class:`ForecastModel`, which forecasts; of materials one that
        predicts and is a calculator of ASE.

    Raises:
        ConfigError: there is no such run.
        DataError: where one of its files is missing or corrupted.
    """
    folder = RunFolder.find(str(run), str(runs_dir))
    domain = load_domain(folder.record["config"]["domain"])
    kind: type[TrainedModel] = TrainedModel
    if isinstance(domain, InPython):
        kind = domain.trained_model
    elif isinstance(domain, Forecasts):
        kind = ForecastModel
    return kind(folder, checkpoint=str(checkpoint), mesh=Mesh.alone(pick_device(device)))


def train(domain: str = "climate", **keys: Any) -> Any:
    """Trains a model in this process, scores it, and writes its run and its report under ``runs/``.

    Args:
        domain: ``climate``, ``fluids``, ``materials`` or ``language``.
        keys: those of ``sciml train``: groups by name (``model="vit_small"``), keys within groups as mappings
            (``trainer={"max_steps": 100}``) or dotted (``**{"trainer.max_steps": 100}``).

    Returns:
        The trained model, as :func:`load` gives it.

    Raises:
        ConfigError, DataError: for what cannot work.
        RunError: where it was interrupted; ``resume=`` continues it.
    """
    from sciml.app.train import run

    result = run(compose("train", arguments({"domain": domain, **keys})))
    if result is None or not result.document["finished"]:
        raise RunError("the training was stopped before its end; go on with resume=latest")
    return load(result.document["run"])


@dataclass(frozen=True)
class Plan:
    """Says what a training needs and how fast it is; :func:`plan` makes it.

    Attributes:
        document: everything, as ``sciml plan output=json`` prints it.
        text: the same for reading.
    """

    document: Mapping[str, Any]
    text: str

    @cached_property
    def table(self) -> pd.DataFrame:
        """Returns the strategies, the fastest first; one row each."""
        import pandas as pd

        return pd.json_normalize(self.document["strategies"])

    def __str__(self) -> str:
        return self.text


def plan(**keys: Any) -> Plan:
    """Plans a training on a cluster without running it.

    Args:
        keys: those of ``sciml plan``, e.g. ``model="vit_5b", cluster="frontier", devices=512``; see :func:`train` for
            keys within groups.

    Raises:
        ConfigError: for what cannot work.
    """
    from sciml.app.plan import run

    with tempfile.TemporaryDirectory() as folder:
        result = run(compose("plan", arguments({"pictures": False, "out": f"{folder}/plan", **keys})))
    return Plan(result.document, result.text)
