"""DeepSpeed brought up over a mesh: imported quietly, given our ranks, and configured without surprises."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sciml.core.errors import ConfigError
from sciml.distributed.axes import GRADIENTS, Role
from sciml.distributed.mesh import Mesh
from sciml.parallel.model import ParallelModel
from sciml.parallel.pipeline import Pipeline
from sciml.parallel.stage import Stage
from sciml.parallel.tokens import TokenLayout

VERSIONS = "0.19"
"""Whose steps these files know from inside."""


def import_deepspeed(mesh: Mesh) -> Any:
    """Imports the module, ready for the processes of a mesh.

    Raises:
        ConfigError: where it cannot be imported, or is of another version.
    """
    # Read by DeepSpeed when it is first imported; else it would take a GPU that the run does not use.
    os.environ.setdefault("DS_ACCELERATOR", mesh.device.type)
    os.environ.setdefault("LOCAL_RANK", str(mesh.device.index or 0))
    with quiet():
        deepspeed = _imported()
        if not dist.is_initialized():  # a process alone
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        # Compiling this operator takes a minute, and fails without a C++ compiler; gloo does as well.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # It calls collectives by names that newer versions of torch warn of.
    warnings.filterwarnings("ignore", message="`torch.distributed.*deprecated", category=FutureWarning)
    return deepspeed


def _imported() -> Any:
    hint = f"install it with: pip install 'deepspeed=={VERSIONS}.*', or use engine=native"
    try:
        deepspeed = importlib.import_module("deepspeed")
    except ImportError as error:
        raise ConfigError(f"DeepSpeed cannot be imported ({error})", key="engine", hint=hint) from None
    version = deepspeed.__version__
    if not version.startswith(f"{VERSIONS}."):
        raise ConfigError(f"this is DeepSpeed {version}, and {VERSIONS} is needed", key="engine", hint=hint)
    return deepspeed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps back what DeepSpeed prints and logs while it starts."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def configuration(
    *, stage: int, offload: bool, clip_norm: float | None, micro_batch: int, num_micro: int
) -> dict[str, Any]:
    """Returns DeepSpeed's configuration; settings whose defaults would change the training are always written out."""
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": stage == 3,
        "contiguous_gradients": True,
        # Parameters that stay gathered between steps would not notice when their parts are changed.
        "stage3_param_persistence_threshold": 0,
    }
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.accelerator.is_available()}
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": num_micro,
        "gradient_clipping": clip_norm or 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # Spreads what flows between stages over tp again, and takes one tensor with a gradient only.
        "pipeline": {"pipe_partitioned": False, "grad_partitioned": False},
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


class Ranks:
    """Describes the mesh in Megatron's words, in which DeepSpeed asks for it (its ``mpu``).

    To DeepSpeed, ranks that share tokens are data-parallel ones: their gradients are parts of a sum, too.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def _group(self, *roles: Role) -> dist.ProcessGroup:
        return self.mesh.group(*roles) or self._alone()

    def _alone(self) -> dist.ProcessGroup:
        if not hasattr(self, "_single"):
            self._single = dist.new_group([dist.get_rank()], use_local_synchronization=True)
        return self._single

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        return self._group(*GRADIENTS)

    def get_data_parallel_rank(self) -> int:
        return self.mesh.rank(*GRADIENTS)

    def get_data_parallel_world_size(self) -> int:
        return self.mesh.size(*GRADIENTS)

    def get_data_parallel_group_ranks(self) -> list[int]:
        return dist.get_process_group_ranks(self.get_data_parallel_group())

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        return self._group(Role.MATRIX)

    def get_model_parallel_rank(self) -> int:
        return self.mesh.rank(Role.MATRIX)

    def get_model_parallel_world_size(self) -> int:
        return self.mesh.size(Role.MATRIX)


class Work(nn.Module):
    """Calls whatever is to be done with the model, so that DeepSpeed sees one forward pass whose output is a loss.

    It hooks the outputs of the module that it wraps, which must therefore not be the model itself: a task may
    differentiate, or call it several times.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], Any]) -> Any:
        return work(self.model)


class StageLayer(nn.Module):
    """Makes our pipeline stage the one layer of DeepSpeed's; what the data loader gives is ignored.

    Args:
        layout: where tokens are spread over ranks: later stages receive their number, which only the first counts.
    """

    def __init__(self, stage: Stage, layout: TokenLayout | None) -> None:
        super().__init__()
        self.stage, self.layout = stage, layout

    def forward(
        self, received: Float[Tensor, "..."] | tuple[Float[Tensor, "..."], ...]
    ) -> Float[Tensor, "..."] | tuple[Float[Tensor, "..."], ...]:
        activations: tuple[Tensor, ...] = ()
        if not self.stage.is_first:
            activations = received if isinstance(received, tuple) else (received,)
            if self.layout is not None:
                self.layout.count = int(activations[-1].item())
                activations = activations[:-1]
        sent = self.stage(*activations)
        if isinstance(sent, Tensor):
            return sent
        if self.layout is not None:
            sent = (*sent, torch.tensor([self.layout.count], device=sent[0].device))
        return sent if len(sent) > 1 else sent[0]


def pipeline_module(pipeline: Pipeline, mesh: Mesh) -> nn.Module:
    """Returns DeepSpeed's pipeline of our stages, one a rank."""
    from deepspeed.pipe import PipelineModule
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    layers: list[nn.Module] = [nn.Identity() for _ in range(mesh.size(Role.STAGE))]
    for index, stage in pipeline.stages.items():
        layers[index] = StageLayer(stage, pipeline.layout)
    topology = PipeModelDataParallelTopology(
        num_pp=mesh.size(Role.STAGE), num_dp=mesh.size(*GRADIENTS), num_mp=mesh.size(Role.MATRIX)
    )
    # Shapes travel with every message, since batches may change theirs.
    return PipelineModule(layers, topology=topology, partition_method="uniform", dynamic_shape=True)


def initialized(model: ParallelModel, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    """Returns DeepSpeed's engine of a model."""
    deepspeed = import_deepspeed(model.mesh)
    pipeline = model.pipeline
    with quiet():
        engine, *_ = deepspeed.initialize(
            model=Work(model.module) if pipeline is None else pipeline_module(pipeline, model.mesh),
            optimizer=optimizer,
            mpu=Ranks(model.mesh) if pipeline is None else None,
            config=config,
        )
    return engine
