"""Runs the commands that use a trained model on a user's cases: they load it and hand the domain its own keys."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from sciml.core.config import build
from sciml.core.errors import ConfigError
from sciml.core.result import CommandResult, Output
from sciml.core.types import DeviceName
from sciml.distributed.launcher import launched
from sciml.distributed.mesh import Mesh
from sciml.distributed.world import World, join, pick_device
from sciml.domain.loading import load_domain
from sciml.run.folder import RunFolder
from sciml.run.loaded import load_model


@dataclass(frozen=True)
class RunChoice:
    """Says which trained model is used, and where."""

    run: str = "latest"
    runs_dir: str = "runs"
    checkpoint: str | int = "best"
    device: DeviceName = "auto"
    output: Output = "text"

    def folder(self, protocol: type | None = None) -> RunFolder:
        """Returns the folder of the run; says which it is where that was left open.

        Args:
            protocol: that its domain must follow, where the latest run is wanted.

        Raises:
            ConfigError: where there is no such run.
        """

        def can(run: RunFolder) -> bool:
            return protocol is None or isinstance(load_domain(run.record["config"]["domain"]), protocol)

        folder = RunFolder.find(self.run, self.runs_dir, can=can)
        if self.run.endswith("latest") and launched().rank == 0:
            print(f"run         {folder.path}", file=sys.stderr, flush=True)
        return folder


def run_on_model(verb: str, protocol: type, config: Mapping[str, Any], *, shared: bool = False) -> CommandResult | None:
    """Runs the domain's method ``verb`` on a run's model, with the keys that its ``<verb>_config`` knows.

    Args:
        shared: whether several processes may run it together; the first returns the result.

    Raises:
        ConfigError: there is no such run, its domain does not follow the protocol of the verb, or there are several
            processes for a verb that one runs.
    """
    own = {field.name for field in fields(RunChoice)}
    choice = build(RunChoice, {name: value for name, value in config.items() if name in own})
    folder = choice.folder(protocol)
    domain = load_domain(folder.record["config"]["domain"])
    if not isinstance(domain, protocol):
        raise ConfigError(f"{verb} is not for domain={domain.name}", key="run", hint="choose a run of another one")
    keys = {name: value for name, value in config.items() if name not in own}
    domain_config = build(getattr(domain, f"{verb}_config"), keys)
    if launched().size > 1 and not shared:
        raise ConfigError(f"{verb} runs in one process", key="parallel", hint="leave torchrun out")
    world = join(choice.device) if shared else World(0, 1, torch.device(pick_device(choice.device)))
    model = load_model(folder, checkpoint=str(choice.checkpoint), mesh=Mesh.alone(world.device))
    result: CommandResult = getattr(domain, verb)(replace(model, world=world), domain_config)
    if not world.is_main:
        return None
    return CommandResult({"run": str(folder.path), **result.document}, result.text)
