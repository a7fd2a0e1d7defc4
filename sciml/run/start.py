"""Finds where a training begins: at a new run, at one to resume, or at that of a job that was restarted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sciml.core.errors import ConfigError
from sciml.core.files import check_writable
from sciml.distributed.world import World
from sciml.domain.loading import load_domain
from sciml.run.compose import Composition
from sciml.run.degrees import with_fitting_replicas
from sciml.run.folder import RunFolder, new_path, taken
from sciml.run.loaded import find_checkpoint
from sciml.run.restart import RestartNote
from sciml.run.resume import resumed_config
from sciml.run.spec import RunOptions
from sciml.run.warm_start import find_source


@dataclass(frozen=True)
class RunStart:
    """Says where a training begins.

    Attributes:
        config: that of the run that continues, with what was typed; of a new run, the composed one.
        folder: the run that continues; None begins a new one.
        note: for restarts of this job.
    """

    config: Mapping[str, Any]
    folder: RunFolder | None
    note: RestartNote


def find_run(composition: Composition, world: World) -> RunStart:
    """Finds the run that a training continues, by ``resume`` or because its job was restarted.

    Raises:
        ConfigError: where a run that is named does not exist or has no checkpoint, or ranks were started differently.
    """
    config = composition.config
    world.agree("the configuration", config)
    options = RunOptions.build(config)
    note = RestartNote.of(config, options.runs_dir, world)
    begun = note.begun()
    if begun is not None:
        config = resumed_config(begun.folder, composition, restarted=True)
        return RunStart(with_fitting_replicas(config, world.size, begun.processes), begun.folder, note)
    if options.resume:
        folder = RunFolder.find(options.resume, options.runs_dir, "resume")
        if folder.is_exported:
            raise ConfigError(
                f"{folder.path} is an exported model without its optimizer",
                key="resume",
                hint="begin a new run with init_from=",
            )
        find_checkpoint(folder, "latest")  # a run without any is refused before data are read
        return RunStart(resumed_config(folder, composition), folder, note)
    domain = load_domain(config["domain"]).name
    if options.init_from:  # what "latest" is now
        config = {**config, "init_from": str(find_source(options.init_from, options.runs_dir, domain).path)}
    if world.is_main:  # before steps are measured and data are read
        _check_new_run(options, domain)
    return RunStart(config, None, note)


def _check_new_run(options: RunOptions, domain: str) -> None:
    """Refuses a name that is taken or cannot be one, and a folder that cannot be written."""
    path = new_path(options.runs_dir, domain, options.run)
    if path.exists():
        raise taken(path)
    check_writable(path)
