"""Options of a language model that leave its function alone, or are those of published models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sciml.models.gpt import GPT, GPTConfig
from sciml.nn import vocabulary
from sciml.planning.op_meter import Meter

CONFIG = GPTConfig(embed_dim=32, depth=3, num_heads=4, vocabulary_size=64, context=16)
TOKENS = torch.arange(32).view(2, 16)


def gradients(config: GPTConfig) -> tuple[float, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = GPT(config)
    loss = model(TOKENS, TOKENS + 1).mean()
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(("recompute", "every"), [("attention", 1), ("full", 2), ("selective", 3)])
def test_what_is_computed_again_changes_nothing(recompute, every):
    loss, plain = gradients(CONFIG)
    other, again = gradients(replace(CONFIG, recompute=recompute, recompute_every=every))
    assert other == loss
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    blocks = GPT(replace(CONFIG, recompute=recompute, recompute_every=every)).trunk.blocks
    assert [block.recompute != "none" for block in blocks] == [n % every == 0 for n in range(3)]


def test_a_loss_in_chunks_is_the_loss(monkeypatch):
    loss, whole = gradients(CONFIG)
    monkeypatch.setattr(vocabulary, "CHUNK_LOGITS", 7 * 64)
    other, parts = gradients(CONFIG)
    assert other == pytest.approx(loss, rel=1e-6)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-7) for name in whole)


def test_a_loss_in_chunks_casts_its_weights_once_and_adds_their_gradients_in_float32(monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK_LOGITS", 8 * 50)  # 32 chunks
    torch.manual_seed(0)
    head, x = vocabulary.VocabularyHead(50, 16), torch.randn(2, 128, 16)
    torch.nn.init.normal_(head.weight)
    targets = torch.randint(0, 50, (2, 128))
    meter = Meter([head.weight], weights=[head.weight])
    with meter:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = head(x, targets)
        loss.sum().backward()
    assert sum(count.cast_bytes for count in meter.counts.values()) == (4 + 2) * head.weight.numel()
    cast = head.weight.detach().bfloat16().double().requires_grad_()
    logits = x.bfloat16().double() @ cast.T
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").backward()
    error = (head.weight.grad - cast.grad).norm() / cast.grad.norm()
    assert error < 2**-8  # the rounding of one product; sums in bfloat16 would add theirs


def test_heads_of_keys_are_shared_by_groups_of_queries():
    grouped = GPT(replace(CONFIG, num_kv_heads=2, norm="rms"))
    attention = grouped.trunk.blocks[0].attention
    assert attention.wk.weight.shape == (16, 32)
    query, key = torch.randn(1, 5, 4, 8), torch.randn(1, 5, 2, 8)
    one = attention.attend(query, key, key)
    whole = attention.attend(query, key.repeat_interleave(2, 2), key.repeat_interleave(2, 2))
    assert torch.allclose(one, whole, atol=1e-6)
    assert grouped(TOKENS, TOKENS).isfinite().all()
