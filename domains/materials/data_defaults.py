"""Decides what a specification leaves to its data: the priors under the network.

A modified embedded-atom potential is learned from where it explains much of the forces of structures that it was
not fitted to: what it says of structures unlike the training set is then better than what a free network says.
"""

from __future__ import annotations

from dataclasses import replace

from domains.materials.data.samples import MaterialsDataConfig, open_or_prepare
from domains.materials.data.schema import MaterialsSchema, MaterialsStatistics
from domains.materials.data.store import MaterialsStore
from domains.materials.training.baseline_fit import FEWEST, fit_pair_baseline, left_by_baseline, num_with_forces
from domains.materials.training.task import MaterialsTaskConfig
from sciml.core.errors import ConfigError
from sciml.domain.optional import AUTO, DataDefaults
from sciml.domain.protocol import DomainSpec
from sciml.models.gnn import GNNConfig
from sciml.nn.repulsion import ScreenedRepulsion

MaterialsSpec = DomainSpec[MaterialsDataConfig, MaterialsTaskConfig, GNNConfig]
MUCH = 0.2
"""Share of the forces, as rms, that a fitted potential must explain to be learned from."""


def data_defaults(spec: MaterialsSpec, source: MaterialsSpec | None = None) -> DataDefaults:
    """Returns the keys that a specification leaves open, and says which gradients of the energy are asked for and not
    there.

    Args:
        source: of the run whose weights the training starts from, with the priors beside which they were trained.

    Raises:
        ConfigError, DataError: where the data cannot be opened, or a fitted potential is asked for that cannot be.
    """
    store = open_or_prepare(spec.data)
    sentences = without_effect(spec.task, store.schema)
    values = {}
    if spec.model.repulsion == AUTO:
        before = "zbl" if source is None else source.model.repulsion
        values["model.repulsion"] = "none" if before == "none" else "zbl"
        if before == "none":
            sentences.append("no repulsion of nuclei: the weights that it starts from have none")
    if spec.task.baseline == AUTO:
        chosen, reason = ("none", "") if source is None else (source.task.baseline, "")
        if source is None and _may_have_baseline(spec, store) and spec.data.labeled_by == "unknown":
            chosen, reason = _judged(store, *_reach(spec, store, values.get("model.repulsion", spec.model.repulsion)))
        values["task.baseline"] = chosen
        sentences += [reason] if reason else []
    elif spec.task.baseline != "none":
        _refuse_impossible(spec, store, source)
    return DataDefaults(values, "; ".join(sentences))


def planned_defaults(spec: MaterialsSpec) -> DataDefaults:
    """Returns the keys that a specification leaves open, for a plan: what a fitted potential costs is nothing beside a
    network, so none is judged.
    """
    values = {}
    if spec.model.repulsion == AUTO:
        values["model.repulsion"] = "zbl"
    if spec.task.baseline == AUTO:
        values["task.baseline"] = "none"
    return DataDefaults(values)


def with_baseline(spec: MaterialsSpec, store: MaterialsStore, statistics: MaterialsStatistics) -> MaterialsStatistics:
    """Returns statistics with the potential that was chosen, fitted to the training split.

    There is none beside exact energies of free atoms, from which its shift cannot be told, and where forces are few.
    """
    kind = spec.task.baseline
    if kind == "auto" or kind == "none" or not _may_have_baseline(spec, store):
        return statistics
    reach, repulsion = _reach(spec, store, spec.model.repulsion)
    fitted = fit_pair_baseline(store, reach, kind, repulsion=repulsion)
    return statistics if fitted is None else replace(statistics, pair=fitted.to_tensors())


def _refuse_impossible(spec: MaterialsSpec, store: MaterialsStore, source: MaterialsSpec | None) -> None:
    """Refuses a potential that was asked for by name and that the data, or the weights to start from, do not allow.

    Raises:
        ConfigError: says why.
    """
    kind, key, hint = spec.task.baseline, "task.baseline", "leave it out, or task.baseline=none"
    if source is not None and source.task.baseline != kind:
        there = f"beside {source.task.baseline}" if source.task.baseline != "none" else "without a fitted potential"
        raise ConfigError(f"the weights that it starts from were trained {there}", key=key, hint="leave it out")
    if source is not None:  # its potential is taken as it is
        return
    if not spec.task.has_gradients:
        raise ConfigError("a potential is fitted to forces, which are not learned here", key=key, hint=hint)
    if store.schema.exact_references:
        raise ConfigError(
            "beside exact energies of free atoms (data.references, isolated atoms) no potential is fitted",
            key=key,
            hint=hint,
        )
    if (count := num_with_forces(store)) < FEWEST:
        raise ConfigError(
            f"a potential is fitted to {FEWEST} training structures with forces or more, here are {count}",
            key=key,
            hint=hint,
        )


def _may_have_baseline(spec: MaterialsSpec, store: MaterialsStore) -> bool:
    return spec.task.has_gradients and not store.schema.exact_references


def _reach(spec: MaterialsSpec, store: MaterialsStore, repulsion: str) -> tuple[float, ScreenedRepulsion | None]:
    """Returns where a fitted potential ends (A), and what stands beside it."""
    beside = None if repulsion == "none" else ScreenedRepulsion(spec.model.cutoff)
    return min(spec.model.cutoff, store.schema.cutoff), beside


def _judged(store: MaterialsStore, reach: float, repulsion: ScreenedRepulsion | None) -> tuple[str, str]:
    """Returns the baseline that the data deserve, and the sentence that says why."""
    left = left_by_baseline(store, reach, "meam", repulsion=repulsion)
    if left is None:
        return "none", ""
    of_forces = f"explains {max(0.0, 1 - left):.0%} of the forces of structures that it was not fitted to"
    if left > 1 - MUCH:
        return "none", f"task.baseline=none: a potential of embedded atoms {of_forces}"
    return (
        "meam",
        f"the network learns the difference to a potential of embedded atoms, which {of_forces}: task.baseline=meam",
    )


def without_effect(task: MaterialsTaskConfig, schema: MaterialsSchema) -> list[str]:
    """Says which weights of an energy's gradients have no effect, since the data have no such label."""
    target = task.targets.get("energy")
    if target is None or target.kind != "energy":
        return []
    weights = {"forces": target.forces_weight, "stress": target.stress_weight}
    return [
        f"no {name} label in the data: task.targets.energy.{name}_weight has no effect"
        for name, weight in weights.items()
        if weight and name not in schema.labels
    ]
