"""The language domain: what the rest of the suite sees of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from domains.language.data_config import LanguageDataConfig
from domains.language.example import language_example
from domains.language.figures import language_figures
from domains.language.samples import Windows
from domains.language.schema import LanguageSchema, LanguageStatistics, count_pairs
from domains.language.task import BASELINES, LanguageTask, LanguageTaskConfig
from domains.language.text import NUM_BYTES, Blank, cut, find_files
from domains.language.trained_model import LanguageModel
from sciml.core.errors import ConfigError
from sciml.domain.optional import DataDefaults
from sciml.domain.protocol import DomainSpec, FittedData, NamedFigure, RunResult, Splits
from sciml.models.gpt import GPT, GPTConfig

LanguageSpec = DomainSpec[LanguageDataConfig, LanguageTaskConfig, GPTConfig]


class LanguageDomain:
    """Predicts the bytes of text, each from those before it, by a decoder-only transformer."""

    name = "language"
    model_kinds: Mapping[str, type] = {"gpt": GPTConfig}
    data_config = LanguageDataConfig
    task_config = LanguageTaskConfig
    trained_model = LanguageModel
    baselines = BASELINES

    def check(self, spec: LanguageSpec) -> None:
        model: GPTConfig = spec.model
        if model.vocabulary_size < NUM_BYTES:
            raise ConfigError(
                f"{model.vocabulary_size} words are fewer than the {NUM_BYTES} bytes that text is made of",
                key="model.vocabulary_size",
                hint=f"use {NUM_BYTES}",
            )
        if model.positions == "learned" and context_of(spec) > model.context:
            raise ConfigError(
                f"{context_of(spec)} bytes are more than the {model.context} positions that the model learns",
                key="data.context",
                hint=f"use at most {model.context}, a larger model.context, or model.positions=rotary",
            )
        if spec.engine.name == "deepspeed" and spec.parallel.pp > 1 and model.tied_embedding:
            raise ConfigError(
                "DeepSpeed's pipeline does not add the gradients of an embedding that two stages hold",
                key="model.tied_embedding",
                hint="model.tied_embedding=false, or engine=native",
            )

    def splits(self, spec: LanguageSpec, fitted: FittedData | None = None) -> Splits:
        context = context_of(spec)
        passages = cut(find_files(spec.data.patterns), spec.data.splits)
        learns = fitted is None  # other text may be there to be scored alone
        return Splits(
            train=Windows(passages["train"], "train", context, random=True, required=learns),
            valid=Windows(passages["valid"], "valid", context, required=learns),
            test=Windows(passages["test"], "test", context),
            schema=LanguageSchema(context, spec.data.title),
            statistics=fitted.statistics if fitted else count_pairs(passages["train"]),
        )

    def planned_defaults(self, spec: LanguageSpec) -> DataDefaults:
        return DataDefaults({})

    def planned_splits(self, spec: LanguageSpec) -> Splits:
        context = context_of(spec)
        window = Windows([Blank(context + 1)], "train", context)
        return Splits(window, window, window, LanguageSchema(context, spec.data.title), count_pairs([]))

    def model(self, spec: LanguageSpec, schema: LanguageSchema) -> nn.Module:
        return GPT(spec.model)

    def task(self, spec: LanguageSpec, splits: Splits) -> LanguageTask:
        return LanguageTask(splits.schema, splits.statistics, spec.task)

    def restore(self, schema: Mapping[str, Any], statistics: Mapping[str, Tensor]) -> FittedData:
        return FittedData(LanguageSchema.from_dict(schema), LanguageStatistics.from_tensors(statistics))

    def example(self, task: Any, model: nn.Module, splits: Splits) -> dict[str, np.ndarray]:
        assert isinstance(splits.test, Windows)
        return language_example(task, model, splits.test)

    def figures(self, result: RunResult) -> Iterator[NamedFigure]:
        return language_figures(result)


def context_of(spec: LanguageSpec) -> int:
    """Returns the number of bytes of a sample."""
    return spec.data.context or spec.model.context
