"""Import of a model that was trained elsewhere: its weights become a run that has made no step yet."""  # noqa: N999 - a file is called as its verb

from __future__ import annotations

from pathlib import Path

import torch

from sciml.app.run_on_data import FOR_TRAINING
from sciml.core.command_line import command
from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.files import atomic_directory, check_writable
from sciml.core.result import CommandResult
from sciml.domain.loading import load_domain
from sciml.domain.optional import ImportedModel, Imports
from sciml.run.compose import Composition
from sciml.run.folder import RunFolder, new_path
from sciml.run.loaded import save_fitted
from sciml.run.spec import GROUPS, RunSpec, with_overrides
from sciml.training.checkpoint import CheckpointStore

OWN = ("seed", "runs_dir", "out")
"""Keys of the command itself; the others beside the groups are the domain's."""


def run(composition: Composition) -> CommandResult:
    """Reads the model, writes the run's folder at once, and prints its path.

    Raises:
        ConfigError: the domain imports nothing, the file does not fit, or the folder is there already.
    """
    config = composition.config
    domain = load_domain(config["domain"])
    if not isinstance(domain, Imports):
        raise ConfigError(f"import is not for domain={domain.name}", key="domain", hint="see docs/add-a-domain.md")
    path = Path(config["out"]) if config["out"] else new_path(config["runs_dir"], domain.name, None)
    if path.exists():
        raise ConfigError(f"{path} is there already", key="out", hint="choose another name")
    check_writable(path.parent)
    keys = {name: value for name, value in config.items() if name not in (*FOR_TRAINING, *OWN)}
    imported = domain.import_model(build(domain.import_config, keys))
    typed = {key: value for key, value in composition.overrides.items() if key.startswith("model.")}
    groups = {name: config[name] for name in (*GROUPS, "seed", "runs_dir")}
    spec = RunSpec.build(with_overrides({**groups, "model": dict(imported.model)}, typed))
    check_fit(spec, imported)
    with atomic_directory(path) as temporary:
        folder = RunFolder(temporary)
        save_fitted(folder, imported.fitted)
        weights = {f"model.{name}": value.float() for name, value in imported.weights.items()}
        CheckpointStore(folder.checkpoints).save(0, weights)
        folder.write_record(domain.name, spec.config, dict.fromkeys(("train", "valid", "test"), 0))
    count = sum(value.numel() for value in imported.weights.values())
    text = (
        f"made  {path}, {count:,} parameters\n"
        f"next  {command('train', domain=domain.name, init_from=path)}, and the keys of its model and data"
    )
    return CommandResult({"path": str(path), "parameters": count}, text)


def check_fit(spec: RunSpec, imported: ImportedModel) -> None:
    """Refuses weights that are not those of the run's model, parameter by parameter.

    Raises:
        ConfigError: naming one that differs.
    """
    with torch.device("meta"):
        model = spec.build_model(imported.fitted.schema)
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    found = {name: tuple(value.shape) for name, value in imported.weights.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise ConfigError(
                f"the model has {name} of shape {wanted.get(name)}, the file gives {found.get(name)}",
                key="model",
                hint="leave out the keys that change its size",
            )
