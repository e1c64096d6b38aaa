"""Greedy text and sampling filters against transformers, on fresh random models and prompts (seeds: live_support)."""

import random
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from live_support import SEEDS, TOKENIZER_SIZE, generator, random_ids, randomise, save_theirs, theirs
from torch import Tensor, nn
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import minipoet
from minipoet.generation import Continuation, SamplingSettings, filter_logits, generate_ids, generate_many, search_beams
from minipoet.generation.sampling import seen_ids
from minipoet.models import load_model

NEW = 16
CLEAR = 1e-4  # a smaller gap between the two best scores may be decided by rounding
SPARE = list(range(TOKENIZER_SIZE, TOKENIZER_SIZE + 11))
TEXTS = ["Лодки стоят у берега,", "Кот", "The boy counts\nthe swallows: 1912", "В доме свет,\n  никого на свете  "]


def random_prompts(seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [random_ids(seed + i, 1, rng.randint(1, 12))[0].tolist() for i in range(rng.randint(1, 6))]


def their_greedy(
    model: nn.Module, prompts: list[list[int]], eos: list[int], penalty: float, never: list[int]
) -> list[tuple[list[int], int]]:
    """For each prompt the new ids without the end, and how many steps were decided clearly."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts])
    model.generation_config.eos_token_id = eos
    never = [id for id in never if id < model.config.vocab_size]
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW,
        repetition_penalty=penalty,
        suppress_tokens=never or None,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best, second = torch.stack(out.scores, dim=1).topk(2, dim=-1).values.unbind(-1)  # (B, steps) each
    clear = ((best - second) > CLEAR).long().cumprod(dim=1).sum(dim=1).tolist()
    rows = []
    for new, steps in zip(out.sequences[:, width:].tolist(), clear, strict=True):
        end = next((i for i, id in enumerate(new) if id in eos), len(new))
        rows.append((new[:end], steps))
    return rows


def assert_same_ids(ours: list[tuple[int, ...]], theirs: list[tuple[list[int], int]]) -> None:
    for row, (new, (expected, clear)) in enumerate(zip(ours, theirs, strict=True)):
        if clear < len(expected):  # what comes after an unclear step proves nothing
            new, expected = new[:clear], expected[:clear]
        assert list(new) == expected, f"row {row}"


@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
@pytest.mark.parametrize("seed", SEEDS)
def test_greedy_ids_equal_those_of_transformers(seed: int, penalty: float, tmp_path: Path) -> None:
    reference = theirs(seed)
    model, tokenizer = minipoet.load(save_theirs(reference, tmp_path))
    prompts, eos = random_prompts(seed), random.Random(seed).sample(range(5, TOKENIZER_SIZE), 20)
    settings = SamplingSettings(max_new_tokens=NEW, temperature=0, repetition_penalty=penalty)
    ours = generate_ids(model, prompts, settings, eos_ids=eos, vocab_size=tokenizer.vocab_size)
    expected = their_greedy(reference, prompts, eos, penalty, SPARE)
    assert_same_ids([new.ids for new in ours], expected)
    one_by_one = generate_ids(model, prompts, settings, eos_ids=eos, vocab_size=tokenizer.vocab_size, batch_size=1)
    assert_same_ids([new.ids for new in one_by_one], expected)


@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_greedy_text_equals_that_of_transformers(seed: int, start: bool, tmp_path: Path) -> None:
    reference = theirs(seed)
    model, tokenizer = minipoet.load(save_theirs(reference, tmp_path))
    ours = generate_many(model, tokenizer, TEXTS, start=start, temperature=0, max_new_tokens=NEW)
    prompts = [[1] * start + tokenizer.encode(text.rstrip(" ")) for text in TEXTS]
    expected = their_greedy(reference, prompts, [2], 1.0, [0, 1, 3, 4, *SPARE])
    assert_same_ids([poems[0].ids for poems in ours], expected)
    for (poem,), prompt, (new, clear) in zip(ours, prompts, expected, strict=True):
        if clear >= len(new):
            assert poem.text == tokenizer.decode([*prompt, *new])
    one = minipoet.generate(model, tokenizer, TEXTS[0], start=start, temperature=0, max_new_tokens=NEW)
    assert one == ours[0][0].text


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_greedy_ids_of_an_adapted_model_equal_those_of_peft(seed: int, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    reference = theirs(seed)
    folder = save_theirs(reference, tmp_path / "base")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    adapted = randomise(peft.get_peft_model(reference, config), seed + 1, only="lora_")
    adapted.save_pretrained(tmp_path / "adapter")
    model, tokenizer = minipoet.load(folder)
    model = minipoet.load_adapter(model, tmp_path / "adapter")
    prompts = random_prompts(seed)
    settings = SamplingSettings(max_new_tokens=NEW, temperature=0)
    ours = generate_ids(model, prompts, settings, eos_ids=[2], vocab_size=tokenizer.vocab_size)
    assert_same_ids([new.ids for new in ours], their_greedy(adapted, prompts, [2], 1.0, SPARE))


def their_search(
    model: nn.Module, prompts: list[list[int]], eos: list[int], beams: int, **options: object
) -> list[tuple[list[int], float]]:
    """The texts that transformers' beams find, with the token that ended them, and their scores."""
    width, source = max(map(len, prompts)), model.config.is_encoder_decoder
    fill = [width - len(row) for row in prompts]  # behind a source, before a prompt
    ids = torch.tensor([[0] * n * (not source) + row + [0] * n * source for n, row in zip(fill, prompts, strict=True)])
    mask = torch.tensor(
        [[0] * n * (not source) + [1] * len(row) + [0] * n * source for n, row in zip(fill, prompts, strict=True)]
    )
    model.generation_config.eos_token_id = eos
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=NEW,
        num_beams=beams,
        num_return_sequences=beams,
        pad_token_id=0,
        output_scores=True,
        output_logits=True,  # or there are no beam_indices
        return_dict_in_generate=True,
        **options,
    )
    new = out.sequences[:, 1 if source else width :].tolist()
    lengths = (out.beam_indices >= 0).sum(1).tolist()
    return list(zip([row[:n] for row, n in zip(new, lengths, strict=True)], out.sequences_scores.tolist(), strict=True))


def assert_same_search(ours: list[list[Continuation]], theirs: list[tuple[list[int], float]], eos: list[int]) -> None:
    """The same texts, unless one of ours is as good as theirs but for rounding: then they may have changed places."""
    flat = [text for row in ours for text in row]
    assert len(flat) == len(theirs)
    for text, (ids, score) in zip(flat, theirs, strict=True):
        limit = 2e-5 * max(1, abs(score))
        assert abs(text.score - score) < limit
        ended = text.finish == "end"
        near = sum(abs(score - other) < limit for _, other in theirs)
        assert near > 1 or list(text.ids) == (ids[:-1] if ended else ids)
        assert near > 1 or ended == (ids[-1] in eos)


def random_search(seed: int) -> tuple[int, dict[str, object]]:
    """A number of beams, and the options that both libraries call alike."""
    rng = random.Random(seed)
    options = {
        "length_penalty": rng.choice([0.0, 1.0, 2.0, -1.0, rng.uniform(-2, 3)]),
        "early_stopping": rng.random() < 0.4,
        "repetition_penalty": rng.choice([1.0, 1.0, 1.3, 0.8]),
    }
    return rng.choice([2, 3, 4, 7]), options


def compare_searches(reference: nn.Module, model: nn.Module, prompts: list[list[int]], first: int, seed: int) -> None:
    eos = random.Random(seed).sample(range(first, model.config.vocab_size), random.Random(seed).choice([1, 2, 20]))
    for number in range(4):
        beams, options = random_search(10 * seed + number)
        expected = their_search(reference, prompts, eos, beams, **options)
        settings = SamplingSettings(max_new_tokens=NEW, temperature=0, beams=beams, **options)
        for batch_size in (64, beams):
            found = search_beams(model, prompts, settings, best=beams, eos_ids=eos, batch_size=batch_size)
            assert_same_search(found, expected, eos)


@pytest.mark.parametrize("seed", SEEDS)
def test_beams_find_the_texts_and_scores_of_transformers(seed: int, tmp_path: Path) -> None:
    reference = theirs(seed)
    model = load_model(save_theirs(reference, tmp_path))
    compare_searches(reference, model, random_prompts(seed), 5, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_written_about_a_source_is_what_transformers_writes(seed: int, tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    rng = random.Random(seed)
    gated = rng.random() < 0.5
    config = T5Config(
        vocab_size=150,
        d_model=rng.choice([16, 24]),
        d_kv=6,
        d_ff=40,
        num_layers=rng.choice([1, 2]),
        num_heads=rng.choice([2, 4]),
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=not gated,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    reference = randomise(T5ForConditionalGeneration(config), seed, std=0.5)
    reference.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    sources = [torch.randint(2, 150, (rng.randint(1, 12),), generator=generator(seed + i)).tolist() for i in range(5)]
    sources = [[*ids, 1] for ids in sources]
    compare_searches(reference, model, sources, 1, seed)
    settings = SamplingSettings(max_new_tokens=NEW, temperature=0, repetition_penalty=1.2)
    width = max(map(len, sources))
    reference.generation_config.eos_token_id = None
    out = reference.generate(
        torch.tensor([row + [0] * (width - len(row)) for row in sources]),
        attention_mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in sources]),
        do_sample=False,
        max_new_tokens=NEW,
        repetition_penalty=1.2,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best, second = torch.stack(out.scores, dim=1).topk(2, dim=-1).values.unbind(-1)
    clear = ((best - second) > CLEAR).long().cumprod(dim=1).sum(dim=1).tolist()
    ours = [text.ids for text in generate_ids(model, sources, settings)]
    assert_same_ids(ours, [(row[:NEW], n) for row, n in zip(out.sequences[:, 1:].tolist(), clear, strict=True)])


def random_filters(seed: int) -> dict[str, float]:
    """Settings of a random set of filters, in the order of transformers."""
    rng = random.Random(seed)
    every = {
        "repetition_penalty": rng.uniform(0.7, 1.6),
        "temperature": rng.uniform(0.3, 2.0),
        "top_k": rng.choice([1, 2, 7, 40, 300, 10**6]),
        "top_p": rng.uniform(0.02, 0.99),
        "min_p": rng.uniform(0.001, 0.5),
    }
    return {name: value for name, value in every.items() if rng.random() < 0.6}


def their_filter(filters: dict[str, float], history: Tensor, logits: Tensor) -> Tensor:
    classes = {
        "repetition_penalty": RepetitionPenaltyLogitsProcessor,
        "temperature": TemperatureLogitsWarper,
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }
    return LogitsProcessorList([classes[name](value) for name, value in filters.items()])(history, logits.clone())


@pytest.mark.parametrize("vocab_size", [13, 421, 5000, 20000])
@pytest.mark.parametrize("seed", SEEDS)
def test_filters_keep_what_those_of_transformers_keep(seed: int, vocab_size: int) -> None:
    """In double precision, so that no token at the edge of top-p is decided by rounding."""
    for number in range(8):
        filters = random_filters(100 * seed + number)
        source = generator(seed + number)
        spread = 1 + 4 * torch.rand(3, 1, generator=source, dtype=torch.float64)
        logits = spread * torch.randn(3, vocab_size, generator=source, dtype=torch.float64)
        history = torch.randint(0, vocab_size, (3, 9), generator=source)
        settings = SamplingSettings(**({"temperature": 1.0, "top_p": 1.0} | filters))
        ours = filter_logits(logits.clone(), settings, seen_ids(history, None, vocab_size))
        torch.testing.assert_close(ours, their_filter(filters, history, logits), msg=lambda m, f=filters: f"{f}: {m}")


@pytest.mark.parametrize("seed", SEEDS)
def test_filters_keep_as_many_tied_tokens_as_those_of_transformers(seed: int) -> None:
    """Which of several equal tokens top-p keeps depends on the sort, how many it keeps does not."""
    for number in range(20):
        filters = random_filters(100 * seed + number)
        logits = torch.randint(-6, 7, (3, 40), generator=generator(seed + number)).double() / 2
        history = torch.randint(0, 40, (3, 5), generator=generator(seed + number))
        settings = SamplingSettings(**({"temperature": 1.0, "top_p": 1.0} | filters))
        ours = filter_logits(logits.clone(), settings, seen_ids(history, None, 40)).sort(dim=-1).values
        expected = their_filter(filters, history, logits).sort(dim=-1).values
        torch.testing.assert_close(ours, expected, msg=lambda m, f=filters: f"{f}: {m}")
