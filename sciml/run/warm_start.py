"""Warm starts: a new model begins with the weights of an earlier run, as far as they fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.domain.protocol import FittedData
from sciml.nn.initialization import additions
from sciml.nn.low_rank import is_low_rank, low_rank_factors
from sciml.run.folder import RunFolder, committed_models
from sciml.run.loaded import find_checkpoint, has_averages, read_fitted
from sciml.run.sized_build import sized_build
from sciml.run.spec import RunSpec, spec_of_run
from sciml.training.checkpoint import read_manifest, read_tensors


def find_source(name: str, runs_dir: str, domain: str) -> RunFolder:
    """Finds the run whose weights a training of a domain starts from; ``latest`` is the latest of the domain.

    Raises:
        ConfigError: there is none, or it is of another domain.
    """
    key = "init_from"
    folder = RunFolder.find(f"{domain}/latest" if name == "latest" else name, runs_dir, key)
    if (other := folder.record["domain"]) != domain:
        committed = f"models/{domain}"
        raise ConfigError(
            f"{folder.path} is a run of domain={other}, and domain={domain} is to be trained",
            key=key,
            hint=f"name a run of {domain}, e.g. {key}={committed if committed in committed_models() else 'latest'}",
        )
    return folder


@dataclass(frozen=True)
class SourceRun:
    """Holds the run whose weights another one starts from, read once.

    Attributes:
        fitted: what its model was built from and normalized with.
        checkpoint: its best one.
    """

    folder: RunFolder
    spec: RunSpec
    fitted: FittedData
    checkpoint: Path

    @classmethod
    def read(cls, folder: RunFolder) -> SourceRun:
        """Reads a run.

        Raises:
            ConfigError: where it has no checkpoint.
            DataError: where a file of it is missing or corrupted.
        """
        spec = spec_of_run(folder)
        return cls(folder, spec, read_fitted(folder, spec), find_checkpoint(folder, "best"))

    def warm_start(self, build: Callable[[], nn.Module]) -> WarmStart:
        """Returns what the parameters of a new model start from.

        Args:
            build: the new model, for one device.
        """
        older = sized_build(lambda: self.spec.build_model(self.fitted.schema), self.checkpoint)
        with torch.device("meta"):
            return WarmStart(build(), older(), self.checkpoint, verify=self.spec.trainer.verify_checksums)


class WarmStart:
    """Starts a model's parameters from another run's averaged weights wherever name and shape agree.

    A model that says by ``variable_rows()`` which parameters have a block of rows for each variable takes over
    the blocks of the variables that both know, so that other variables do not cost it the ones it shares. Where it
    also says, by ``likest(variable, known)``, which known one a new one is most like, the new one starts as that one.

    Matrices that the older model changed by a low rank are taken over with their changes; a new model's own changes
    start at zero, and so does what it notes as an addition and the older one does not have.

    Args:
        model, older: both models, whole; only names, shapes and rows are read.
        path: checkpoint of the older one.
        verify: whether its files are compared with their checksums.

    Attributes:
        fresh: names of the parameters that found no counterpart and stay as initialized.
        additions: names of those that found none either and start at zero.
        starts_as: new variables, and the known ones that they start as.

    Raises:
        ConfigError: where less than half of the model finds its weights: it was not meant for this one.
    """

    def __init__(self, model: nn.Module, older: nn.Module, path: Path, *, verify: bool = True) -> None:
        read_manifest(path, verify=verify)
        self.path, self.kind = path, "ema" if has_averages(path) else "model"
        self.shapes = {name: p.shape for name, p in older.named_parameters()}
        self.rows, self.older_rows = _variable_rows(model), _variable_rows(older)
        sizes = {name: p.numel() for name, p in model.named_parameters()}
        own = {name: p.shape for name, p in model.named_parameters() if not is_low_rank(name)}
        missing = [name for name, shape in own.items() if not self._fits(name, shape)]
        added = additions(model)
        self.additions = [name for name in missing if name in added]
        self.fresh = [name for name in missing if name not in added]
        self.starts_as = _starts_as(model, self.rows, self.older_rows)
        share = 1 - sum(sizes[name] for name in missing) / sum(sizes[name] for name in own)
        if share < 0.5:
            raise ConfigError(
                f"only {share:.0%} of this model fits the weights of {path.parent.parent}",
                key="init_from",
                hint="choose the model that it was trained with",
            )

    def _fits(self, name: str, shape: torch.Size) -> bool:
        if name not in self.shapes:
            return False
        if name not in self.rows:
            return self.shapes[name] == shape
        blocks, older = shape[0] // len(self.rows[name]), self.shapes[name][0] // len(self.older_rows[name])
        return (blocks, *shape[1:]) == (older, *self.shapes[name][1:])

    def __call__(self, name: str, drawn: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Returns the value that a parameter starts from, given the one that was drawn for it."""
        if name in self.additions:
            return torch.zeros_like(drawn)
        if name in self.fresh or is_low_rank(name):
            return drawn
        value = self._read(name, drawn.dtype)
        if name not in self.rows:
            return value
        names, known = self.rows[name], self.older_rows[name]
        blocks, older = drawn.unflatten(0, (len(names), -1)), value.unflatten(0, (len(known), -1))
        for position, variable in enumerate(names):
            variable = self.starts_as.get(variable, variable)
            if variable in known:
                blocks[position] = older[known.index(variable)]
        return drawn

    def _read(self, name: str, dtype: torch.dtype) -> Float[Tensor, "..."]:
        """Returns a parameter of the older model, with its change of low rank where it has one."""
        names = (name, *(low_rank_factors(name, self.shapes) or ()))
        wanted = {f"{self.kind}.{one}": torch.empty(self.shapes[one], dtype=dtype) for one in names}
        value, *factors = read_tensors(self.path, wanted).values()
        return value + factors[0] @ factors[1] if factors else value


def _starts_as(
    model: nn.Module, rows: Mapping[str, tuple[str, ...]], older: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """Returns for each variable that the older model does not know the one that it starts as."""
    likest: Callable[[str, Sequence[str]], str] | None = getattr(model, "likest", None)
    if likest is None:
        return {}
    return {
        variable: likest(variable, older[name])
        for name, variables in rows.items()
        if name in older
        for variable in variables
        if variable not in older[name]
    }


def _variable_rows(model: nn.Module) -> Mapping[str, tuple[str, ...]]:
    rows: Callable[[], Mapping[str, tuple[str, ...]]] | None = getattr(model, "variable_rows", None)
    return rows() if rows is not None else {}
