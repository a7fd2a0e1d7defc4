"""The materials domain: what the rest of the suite sees of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from domains.materials.data.labels import GRAPH, NODE
from domains.materials.data.prepare import PrepareConfig, prepare
from domains.materials.data.samples import (
    MaterialsDataConfig,
    StructureSource,
    branch_numbers,
    held_out_test,
    in_shares,
    open_or_prepare,
    open_test,
)
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.data.store import MaterialsStore
from domains.materials.data_defaults import MaterialsSpec, data_defaults, planned_defaults, with_baseline
from domains.materials.inference.lammps import write_for_lammps
from domains.materials.inference.predict import PredictConfig, predict
from domains.materials.inference.trained_model import MaterialsModel
from domains.materials.screening.screen import screen
from domains.materials.screening.screen_config import ScreenConfig
from domains.materials.simulation.simulate import simulate
from domains.materials.simulation.simulate_config import SimulateConfig
from domains.materials.thermodynamics.thermodynamics import thermodynamics
from domains.materials.thermodynamics.thermodynamics_config import ThermodynamicsConfig
from domains.materials.training.baselines import COMPOSITION, LinearComposition
from domains.materials.training.ensemble import MaterialsEnsemble
from domains.materials.training.example import test_example
from domains.materials.training.figures import materials_figures
from domains.materials.training.potential import MaterialsGNN
from domains.materials.training.task import MaterialsTask, MaterialsTaskConfig
from domains.materials.training.warm_start import warm_start
from sciml.core.errors import ConfigError
from sciml.core.result import CommandResult
from sciml.domain.optional import DataDefaults
from sciml.domain.protocol import FittedData, LoadedModel, NamedFigure, RunResult, Splits
from sciml.models.gnn import GNNConfig

FIRST_TRY = 4
"""Elements of an alloy that a first command is shown with."""


@dataclass(frozen=True)
class MaterialsSplits(Splits):
    """Holds the structures of a store, and the store itself for baselines."""

    store: MaterialsStore


class MaterialsDomain:
    """Predicts properties of alloys on graphs of atoms, by the shared GNN."""

    name = "materials"
    model_kinds: Mapping[str, type] = {"gnn": GNNConfig}
    data_config = MaterialsDataConfig
    task_config = MaterialsTaskConfig
    prepare_config = PrepareConfig
    simulate_config = SimulateConfig
    predict_config = PredictConfig
    screen_config = ScreenConfig
    thermodynamics_config = ThermodynamicsConfig
    trained_model = MaterialsModel
    programs: Mapping[str, Callable[[Path, str | None], None]] = {"lammps": write_for_lammps}
    baselines = (COMPOSITION,)

    def check(self, spec: MaterialsSpec) -> None:
        if spec.task.has_gradients and not spec.model.supports_forces:
            raise ConfigError(
                f"{spec.model.layer} is not smooth in the positions and has no forces",
                key="model.layer",
                hint="use painn, or learn no forces: task.targets.energy.forces_weight=0 and stress_weight=0",
            )
        if spec.model.cutoff > spec.data.cutoff:
            raise ConfigError(
                f"the model looks {spec.model.cutoff:g} A far, neighbors are listed to {spec.data.cutoff:g} A",
                key="data.cutoff",
                hint=f"data.cutoff={spec.model.cutoff:g}",
            )

    def data_defaults(self, spec: MaterialsSpec, source: MaterialsSpec | None = None) -> DataDefaults:
        return data_defaults(spec, source)

    def planned_defaults(self, spec: MaterialsSpec) -> DataDefaults:
        return planned_defaults(spec)

    def planned_splits(self, spec: MaterialsSpec) -> MaterialsSplits:
        """Returns the structures themselves, whose edges decide what a step costs, with nothing fitted to them."""
        return _splits(spec, None)

    def splits(self, spec: MaterialsSpec, fitted: FittedData | None = None) -> MaterialsSplits:
        made = _splits(spec, fitted)
        if fitted is not None:
            return made
        return replace(made, statistics=with_baseline(spec, made.store, made.statistics))

    def model(self, spec: MaterialsSpec, schema: MaterialsSchema) -> nn.Module:
        members = [
            MaterialsGNN(
                spec.model,
                schema.elements,
                spec.task.targets,
                branches=schema.branches,
                avg_num_neighbors=schema.avg_num_neighbors,
                tells_bonds=schema.exact_references,
            )
            for _ in range(spec.task.members)
        ]
        return members[0] if len(members) == 1 else MaterialsEnsemble(members)

    def task(self, spec: MaterialsSpec, splits: Splits) -> MaterialsTask:
        assert isinstance(splits, MaterialsSplits)
        return MaterialsTask(
            splits.schema,
            splits.statistics,
            spec.task,
            baselines=lambda: {COMPOSITION: LinearComposition(splits.store, splits.schema, splits.statistics)},
        )

    def warm_start(self, new: FittedData, older: FittedData) -> FittedData:
        return warm_start(new, older)

    def restore(self, schema: Mapping[str, Any], statistics: Mapping[str, Tensor]) -> FittedData:
        return FittedData(MaterialsSchema.from_dict(schema), MaterialsStatistics.from_tensors(statistics))

    def example(self, task: Any, model: nn.Module, splits: Splits) -> dict[str, np.ndarray]:
        return test_example(task, model, splits.test)

    def figures(self, result: RunResult) -> Iterator[NamedFigure]:
        return materials_figures(result)

    def prepare(self, config: PrepareConfig) -> Path:
        return prepare(config)

    def simulate(self, config: SimulateConfig) -> Path:
        return simulate(config)

    def predict(self, loaded: LoadedModel, config: PredictConfig) -> CommandResult:
        return predict(loaded, config)

    def screen(self, loaded: LoadedModel, config: ScreenConfig) -> CommandResult:
        return screen(loaded, config)

    def suggested_arguments(self, verb: str, fitted: FittedData) -> tuple[str, ...]:
        """Returns a file of one's own, or a few elements that were mixed in training."""
        from ase.data import chemical_symbols

        few = fitted.statistics.mixed(fitted.schema.elements, FIRST_TRY)
        symbols = "".join(chemical_symbols[number] for number in few)
        return ("structures=FILE",) if verb == "predict" else (f"elements={symbols}",)

    def thermodynamics(self, loaded: LoadedModel, config: ThermodynamicsConfig) -> CommandResult:
        return thermodynamics(loaded, config)


def _splits(spec: MaterialsSpec, fitted: FittedData | None) -> MaterialsSplits:
    """Returns the structures of each split, with what a run was fitted to or else their own statistics."""
    store = open_or_prepare(spec.data)
    statistics = store.statistics
    schema = replace(store.schema, avg_num_neighbors=statistics.avg_num_neighbors.item())
    if fitted is not None:
        fitted.schema.check_elements(schema.elements, str(spec.data.path))
        fitted.schema.check_labels(schema, str(spec.data.path))
        schema, statistics = fitted.schema, fitted.statistics
    check_targets(spec.task, schema)
    branches = branch_numbers(schema.branches, store.schema.branches)
    options: dict[str, Any] = {"labels": schema.labels, "dtype": spec.data.dtype, "branches": branches}
    test = open_test(spec.data, store, schema)
    return MaterialsSplits(
        train=StructureSource(store, in_shares(store, store.indices("train"), spec.data.shares), **options),
        valid=StructureSource.of_split(store, "valid", **options),
        test=StructureSource.of_split(store, "test", **options)
        if test is None
        else held_out_test(
            store,
            test,
            dtype=spec.data.dtype,
            branches=branch_numbers(schema.branches, test.schema.branches, "data.test_path"),
        ),
        schema=schema,
        statistics=statistics,
        store=store,
    )


def check_targets(task: MaterialsTaskConfig, schema: MaterialsSchema) -> None:
    """Refuses targets that the data have no label for.

    Raises:
        ConfigError: naming the labels that there are.
    """
    for name, target in task.targets.items():
        if name not in schema.labels:
            known = ", ".join(schema.labels)
            hint = f"data.labels.{name}=KEY makes an entry of the files a label; there are {known}"
            raise ConfigError(f"the data have no label {name!r}", key="task.targets", hint=hint)
        level = NODE if target.kind == "node" else GRAPH
        if schema.labels[name].level != level:
            raise ConfigError(
                f"{name} is a label of {'atoms' if level == GRAPH else 'structures'}",
                key=f"task.targets.{name}.kind",
                hint="node" if level == GRAPH else "graph",
            )
