"""The share of the attention that goes to a prefix: beside a softmax written out, and as its formula says."""

import math

import pytest
import torch
from test_gpt2 import tiny

import minipoet
from minipoet.evaluation import PrefixMass, likelihood, prefix_mass
from minipoet.evaluation.attention import _Watch
from minipoet.models.attention import attend
from minipoet.models.rnn import LSTM, RNNConfig

TEXT = [2, 6, 5, 3, 5, 8]
SHORT = [9, 7, 9]


def prefixed(length=4, **options):
    return minipoet.add_prefix(tiny(), length, **options)


def written_out(model, ids):
    """(L, H, T) by the formula, slot after slot: e^score of the prefix's keys over that of all keys seen."""
    prefix = model.beginning().detach()  # (P, 2·L, H, D)
    P, _, H, D = prefix.shape
    x = model.embed.weight[ids] + model.positions.weight[P : P + len(ids)]
    shares = torch.zeros(model.config.n_layer, H, len(ids))
    for layer, block in enumerate(model.blocks):
        q, k, v = block.attn.qkv(block.norm1(x)).view(len(ids), 3, H, D).unbind(1)
        mixed = torch.zeros(len(ids), H, D)
        for h in range(H):
            keys = [*prefix[:, 2 * layer, h], *k[:, h]]
            values = [*prefix[:, 2 * layer + 1, h], *v[:, h]]
            for t in range(len(ids)):
                e = [math.exp(float(q[t, h] @ key) / math.sqrt(D)) for key in keys[: P + t + 1]]
                shares[layer, h, t] = sum(e[:P]) / sum(e)
                mixed[t, h] = sum(weight * value for weight, value in zip(e, values, strict=False)) / sum(e)
        x = x + block.attn.out(mixed.flatten(1))
        x = x + block.mlp(block.norm2(x))
    return shares


@torch.no_grad()
def test_shares_are_those_of_a_softmax_written_out():
    model = prefixed()
    expected, short = written_out(model, TEXT), written_out(model, SHORT)
    found = prefix_mass(model, [TEXT])
    assert torch.allclose(found.sums.float(), expected, atol=1e-6)
    assert torch.allclose(found.heads.float(), expected.mean(-1), atol=1e-6)
    assert torch.allclose(found.places.float(), expected.mean((0, 1)), atol=1e-6)
    assert found.mean == pytest.approx(float(expected.mean()))
    assert expected.min() > 0 and expected.max() < 1 and expected.std() > 0.1  # so the test says something
    both = prefix_mass(model, [TEXT, SHORT])  # in one batch, one of them padded: the mean is over tokens
    assert both.counts.tolist() == [2, 2, 2, 1, 1, 1]
    assert torch.allclose(both.heads.float(), (expected.sum(-1) + short.sum(-1)) / 9, atol=1e-6)
    assert both.places[1] == pytest.approx(
        float((expected + torch.nn.functional.pad(short, (0, 3)))[:, :, 1].mean() / 2)
    )


def test_a_zero_prefix_gets_e_to_the_zero_a_slot():
    model = prefixed(3, init="zero")
    attn, H = model.blocks[0].attn, model.config.n_head
    x = model.embed.weight[7] + model.positions.weight[3]
    q, k, _ = attn.qkv(model.blocks[0].norm1(x)).view(3, H, -1)
    own = torch.exp((q * k).sum(-1) * attn.scale)
    assert torch.allclose(prefix_mass(model, [[7]]).heads[0].float(), 3 / (3 + own), atol=1e-6)


def test_even_shares_are_those_of_equal_keys():
    model = prefixed(4, init="zero")
    for block in model.blocks:
        block.attn.qkv.weight.data[: model.config.n_embd] = 0  # queries of zero: all scores are 0
        block.attn.qkv.bias.data[: model.config.n_embd] = 0
    found = prefix_mass(model, [TEXT])
    assert found.even.tolist() == pytest.approx([4 / (4 + t) for t in range(1, 7)])
    assert torch.allclose(found.places, found.even, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_read_together_change_nothing(rows):
    model, texts = prefixed(), [TEXT, SHORT, [4], TEXT[::-1], [1, 2, 3, 4, 5, 6, 7, 8]]
    one, other = prefix_mass(model, texts), prefix_mass(model, texts[::-1], rows=rows)
    assert torch.equal(one.counts, other.counts) and torch.allclose(one.sums, other.sums, atol=1e-5)


def test_texts_are_read_as_far_as_the_context():
    model = prefixed(4)
    long = [1, 2, 3] * 20
    assert len(prefix_mass(model, [long]).counts) == model.context == 28
    assert torch.allclose(prefix_mass(model, [long], 5).sums, prefix_mass(model, [long[:5]]).sums)
    assert len(prefix_mass(model, [long], 1000).counts) == 28


def test_grouped_heads_share_the_keys_of_their_group():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 8, generator=generator) for heads in (4, 2, 2))
    with _Watch(2) as watch:
        attend(q[:, :, 2:], k, v, torch.zeros(3, 5), 0.3)
    weights = (q[:, :, 2:] @ k.repeat_interleave(2, dim=1).transpose(-1, -2) * 0.3).softmax(-1)
    assert torch.allclose(watch.shares[0], weights[..., :2].sum(-1), atol=1e-6)


def test_half_precision_takes_another_way_to_the_same_shares():
    model = prefixed()
    model.blocks[1].attn.scale /= 3  # milder scores: what is rounded away is then small
    expected = prefix_mass(model, [TEXT, SHORT]).sums
    found = prefix_mass(model.bfloat16(), [TEXT, SHORT]).sums
    assert found.shape == expected.shape and float((found - expected).abs().max()) < 0.1


def test_looking_changes_neither_logits_nor_the_mode_of_the_model():
    model, ids = prefixed().train(), torch.tensor([TEXT])
    prefix_mass(model, [TEXT])
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()
    before = model(ids)
    with _Watch(4):
        assert torch.equal(model(ids), before)
    measured = likelihood(model, [TEXT], 5, 28)
    assert math.isfinite(measured.loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "must be texts"),
        (([TEXT, []],), "must be texts"),
        ((None,), "texts must be a list"),
        (([["а"]],), "must be a list of whole numbers"),
        (([TEXT], 0), "context=0"),
        (([TEXT], None, 0), "rows=0"),
        (([[99]],), "0 to 49"),
    ],
)
def test_what_cannot_be_measured_is_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        prefix_mass(prefixed(), *arguments)


def test_without_a_prefix_or_attention_there_is_nothing_to_measure():
    with pytest.raises(ValueError, match="No prefix is in use"):
        prefix_mass(tiny(), [TEXT])
    with pytest.raises(ValueError, match="No prefix is in use"):
        prefix_mass(minipoet.set_adapter(prefixed(), None), [TEXT])
    recurrent = minipoet.add_prefix(LSTM(RNNConfig(vocab_size=50, n_embd=4, n_hidden=4)).train(), 1)
    with pytest.raises(ValueError, match="LSTM has no attention"):
        prefix_mass(recurrent, [TEXT])
    assert recurrent.training
    with pytest.raises(ValueError, match="model"):
        prefix_mass("poet-tiny", [TEXT])


def test_means_are_over_tokens():
    sums = torch.tensor([[[1.0, 0.5, 0.0]], [[1.0, 1.0, 1.0]]])  # 2 layers of one head, three places
    found = PrefixMass(sums, torch.tensor([2.0, 1.0, 1.0]), 5)
    assert found.heads.flatten().tolist() == [1.5 / 4, 3 / 4]
    assert found.places.tolist() == [0.5, 0.75, 0.5]
    assert found.mean == pytest.approx((1.5 + 3) / 8)
