"""GPT-2 by hand against recorded logits of transformers, and the model contract: cache, segments, padding."""

import pytest
import torch
from reference_data import load_tensors, reference

from minipoet.models import load_model
from minipoet.models.attention import PREFIX, visibility
from minipoet.models.gpt2 import GPT2, GPT2Config

FOLDERS = ["plain", "options", "unscaled_relu", "untied", "sharded", "old_bin", "fp16", "bf16"]


def tiny(**options) -> GPT2:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    return GPT2(GPT2Config(**(sizes | options))).eval()


def assert_logits_equal(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    limit = 1e-5 * max(1.0, float(theirs.detach().abs().max()))
    assert float((ours - theirs).detach().abs().max()) <= limit


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("case", ["full", "left", "right"])
def test_logits_equal_the_recorded_ones(folder, case):
    recorded = load_tensors(f"gpt2/{'plain' if folder in ('sharded', 'old_bin') else folder}.outputs")
    model = load_model(reference(f"gpt2/{folder}"), dtype=torch.float32)
    mask = recorded[f"{case}.mask"]
    with torch.no_grad():
        logits = model(recorded["ids"], segments=mask)
    real = mask.bool()
    assert_logits_equal(logits[real], recorded[f"{case}.logits"][real])


def test_cached_logits_of_a_padded_batch_equal_the_recorded_ones():
    recorded = load_tensors("gpt2/plain.outputs")
    model = load_model(reference("gpt2/plain"))
    ids, mask = recorded["ids"], recorded["left.mask"]
    cache, pieces = model.new_cache(2), []
    with torch.no_grad():
        for start, stop in ((0, 5), (5, 6), (6, 12)):
            pieces.append(model(ids[:, start:stop], cache, mask[:, start:stop]))
    real = mask.bool()
    assert_logits_equal(torch.cat(pieces, 1)[real], recorded["left.cached_logits"][real])


def test_gradients_equal_the_recorded_ones():
    recorded = load_tensors("gpt2/plain.gradients")
    model = load_model(reference("gpt2/plain"))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    ids = load_tensors("gpt2/plain.outputs")["ids"]
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    assert torch.allclose(loss, recorded["loss"], rtol=1e-6)
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    assert torch.allclose(norm, recorded["grad_norm"], rtol=1e-5)
    compared = 0
    for name, expected in recorded.items():
        if name.startswith("grad."):
            ours, transform = model.name_table().ours(name.removeprefix("grad."))
            found = model.get_parameter(ours).grad
            found = found.t() if transform else found
            assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
            compared += 1
    assert compared == 2


@pytest.mark.parametrize("split", range(1, 12))
def test_cached_logits_equal_uncached_logits_at_every_split(split):
    model, ids = tiny(), torch.randint(50, (3, 12))
    with torch.no_grad():
        whole = model(ids)
        cache = model.new_cache(3)
        parts = torch.cat([model(ids[:, :split], cache), model(ids[:, split:], cache)], dim=1)
    assert cache.length == 12
    assert_logits_equal(parts, whole)


def test_packed_texts_see_only_themselves():
    model, ids = tiny(), torch.randint(50, (2, 12))
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 3, 3, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2]])
    with torch.no_grad():
        packed = model(ids, segments=segments)
        for row in range(2):
            for segment in range(1, int(segments[row].max()) + 1):
                where = segments[row] == segment
                assert_logits_equal(packed[row, where], model(ids[row, where][None])[0])
    assert torch.isfinite(packed).all()


def test_packed_texts_may_be_read_through_a_cache_in_pieces():
    model, ids = tiny(), torch.randint(50, (1, 12))
    segments = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]])
    with torch.no_grad():
        whole, cache = model(ids, segments=segments), model.new_cache(1)
        steps = [model(ids[:, t : t + 1], cache, segments[:, t : t + 1]) for t in range(12)]
    assert_logits_equal(torch.cat(steps, 1)[:, 1:], whole[:, 1:])


def test_a_row_of_padding_alone_gives_no_nan_and_harms_no_gradient():
    model = tiny().train()
    segments = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])
    logits = model(torch.randint(50, (2, 4)), segments=segments)
    logits[1].sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_positions_start_anew_with_each_segment_after_the_prefix():
    new = torch.tensor([[1, 1, 2, 2, 0]])
    past = torch.tensor([[PREFIX, PREFIX]])
    assert visibility(new, past, (1, 5), 2, "cpu").positions.tolist() == [[2, 3, 2, 3, 0]]


def test_reordered_and_repeated_caches_go_on_as_their_rows_did():
    model, ids = tiny(), torch.randint(50, (3, 6))
    next_ids = torch.randint(50, (3, 1))
    with torch.no_grad():
        cache = model.new_cache(3)
        model(ids, cache, torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6, [0] + [1] * 5]))
        rows = torch.tensor([2, 0])
        expected_cache = model.new_cache(2)
        model(ids[rows], expected_cache, torch.tensor([[0] + [1] * 5, [0, 0, 1, 1, 1, 1]]))
        cache.reorder(rows)
        assert_logits_equal(model(next_ids[rows], cache), model(next_ids[rows], expected_cache))
        cache.repeat(2)
        expected_cache.reorder(torch.tensor([0, 0, 1, 1]))
        four = torch.randint(50, (4, 2))
        assert_logits_equal(model(four, cache), model(four, expected_cache))
    assert cache.batch_size == 4


def test_states_and_head_make_the_logits():
    model, ids = tiny(), torch.randint(50, (2, 5))
    assert torch.equal(model(ids), model.head(model.states(ids)))


def test_gradient_checkpointing_changes_no_gradient():
    model = tiny(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1).train()
    ids, segments = torch.randint(50, (2, 8)), torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0]] * 2)
    gradients = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(1)
        model(ids, segments=segments).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-5) for a, b in zip(*gradients, strict=True))


def test_gradients_flow_through_a_cache():
    model, ids = tiny(), torch.randint(50, (1, 8))
    model(ids)[:, 4:].sum().backward()
    expected = model.embed.weight.grad.clone()
    model.zero_grad()
    cache = model.new_cache(1)
    model(ids[:, :4], cache)
    model(ids[:, 4:], cache).sum().backward()
    assert torch.allclose(model.embed.weight.grad, expected, atol=1e-4)


def test_a_text_longer_than_the_context_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"33 tokens.* at most 32"):
        tiny()(torch.zeros(1, 33, dtype=torch.long))


def test_packing_may_be_longer_than_the_context_when_no_text_is():
    segments = torch.arange(1, 5).repeat_interleave(10)[None]
    assert tiny()(torch.zeros(1, 40, dtype=torch.long), segments=segments).shape == (1, 40, 50)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"n_head": 5}, "cannot be divided"), ({"n_layer": 0}, "n_layer = 0"), ({"activation_function": "x"}, "'x'")],
)
def test_an_impossible_config_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
