"""Beam search: searches done by hand, searches that transformers did, and what holds for every family."""

import math
from itertools import product

import pytest
import torch
from reference_data import load_json, reference
from torch import nn

import minipoet
from minipoet.generation import SamplingSettings, generate, generate_ids, generate_many, search_beams, stream
from minipoet.generation.beams import best_continuations
from minipoet.models import load_model
from minipoet.models.base import LanguageModel
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.models.recurrent_cache import StateCache
from minipoet.models.rnn import LSTM, RNNConfig
from minipoet.models.t5 import T5, T5Config
from minipoet.tokenization import train_bpe

END, A, B = 0, 1, 2


def searching(beams=2, **options) -> SamplingSettings:
    return SamplingSettings(**({"temperature": 0, "max_new_tokens": 8, "beams": beams} | options))


class Chain(LanguageModel):
    """A model that one can calculate: the next token depends on the last one only, by a table of probabilities."""

    def __init__(self, *rows: tuple[float, ...]) -> None:
        super().__init__()
        self.config = GPT2Config(vocab_size=len(rows))
        self.embed = nn.Embedding.from_pretrained(torch.tensor(rows).log())
        self.head = nn.Identity()
        self.rows_read: list[int] = []

    context = 100

    def new_cache(self, batch_size: int) -> StateCache:
        return StateCache(batch_size)

    def states(self, ids, cache=None, segments=None):
        self.rows_read.append(len(ids))
        return self.embed(ids)


def found(model, settings, prompt=(END,), eos=(END,), best=2, **options):
    """[(text, probability of all of it)], best first."""
    (texts,) = search_beams(model, [list(prompt)], settings, best=best, eos_ids=eos, **options)
    power = settings.length_penalty
    lengths = [len(text.ids) + (text.finish == "end") for text in texts]
    return [
        (list(text.ids), round(math.exp(text.score * length**power), 6))
        for text, length in zip(texts, lengths, strict=True)
    ]


# --- by hand -----------------------------------------------------------------------------------------------------

#          P(end, A, B) after the start (which is END), after A, after B
SPLIT = Chain((0.1, 0.5, 0.4), (0.4, 0.3, 0.3), (0.9, 0.05, 0.05))


def test_two_beams_find_the_likelier_text_that_greedy_misses():
    # Greedy: A (0.5), then its likeliest follower, the end: 0.5 · 0.4 = 0.20. But B and the end: 0.4 · 0.9 = 0.36.
    greedy = SamplingSettings(temperature=0, max_new_tokens=8)
    assert generate_ids(SPLIT, [[END]], greedy, eos_ids=[END])[0].ids == (A,)
    assert found(SPLIT, searching(length_penalty=0)) == [([B], 0.36), ([A], 0.2)]
    assert generate_ids(SPLIT, [[END]], searching(), eos_ids=[END])[0].ids == (B,)


def test_the_score_is_the_sum_of_logarithms_over_a_power_of_the_length():
    for power in (0.0, 1.0, 2.0, -1.0):
        ((best,),) = search_beams(SPLIT, [[END]], searching(length_penalty=power), eos_ids=[END])
        assert best.score == pytest.approx(math.log(0.36) / 2**power)  # B and the end are two tokens


def test_the_length_penalty_decides_between_a_short_text_and_a_long_one():
    # A·end has 0.6 · 0.5 = 0.3 in two tokens; A·B·end 0.6 · 0.5 · 0.9 = 0.27 in three: by itself A·end is likelier,
    # but ln 0.3 / 2 = -0.602 and ln 0.27 / 3 = -0.436.
    model = Chain((0.1, 0.6, 0.3), (0.5, 0.0, 0.5), (0.9, 0.05, 0.05))
    assert found(model, searching(length_penalty=0), best=1) == [([A], 0.3)]
    assert found(model, searching(length_penalty=1), best=1) == [([A, B], 0.27)]


def test_an_end_behind_as_many_likelier_texts_is_not_kept():
    # The empty text has 0.3 and would be the best of all, but A (0.36) and B (0.34) stand before it.
    model = Chain((0.3, 0.36, 0.34), (0.1, 0.45, 0.45), (0.1, 0.45, 0.45))
    assert [] not in [text for text, _ in found(model, searching(length_penalty=0))]
    assert found(model, searching(3, length_penalty=0), best=1) == [([], 0.3)]


def test_early_stopping_is_content_with_the_first_texts_that_end():
    # Step 2: A·A 0.42, B·end 0.2 (ended), A·end 0.18 (third of all). Step 3: A·A·A 0.294, A·A·end 0.126 (ended): two
    # texts, ln 0.126 / 3 = -0.69 and ln 0.2 / 2 = -0.80. But A·A·A has ln 0.294 / 3 = -0.41, and may end better.
    model = Chain((0.0, 0.6, 0.4), (0.3, 0.7, 0.0), (0.5, 0.25, 0.25))
    assert found(model, searching(early_stopping=True)) == [([A, A], 0.126), ([B], 0.2)]
    assert found(model, searching())[0] == ([A] * 8, round(0.6 * 0.7**7, 6))


def test_a_text_that_ended_is_kept_until_better_ones_take_its_place():
    # A search with score Σ log p is over as soon as what goes on is worse than all that ended: here after two steps.
    SPLIT.rows_read.clear()
    found(SPLIT, searching(length_penalty=0))
    assert SPLIT.rows_read == [1, 2]  # the prompt alone, then its two beams


def test_the_best_continuations_are_those_of_all_beams_of_a_prompt():
    log_p = torch.tensor([[-1.0, -5.0, -2.0], [-1.5, -0.5, -9.0], [-3.0, -1.0, -2.0], [-0.1, -7.0, -8.0]])
    sums = torch.tensor([[-1.0, -2.0], [0.0, -20.0]])  # of two prompts with two beams each
    best = best_continuations(log_p, sums, 3)
    assert best == [[(-2.0, 0, 0), (-2.5, 1, 1), (-3.0, 0, 2)], [(-1.0, 0, 1), (-2.0, 0, 2), (-3.0, 0, 0)]]
    assert len(best_continuations(log_p, sums, 99)[0]) == 6


# --- by transformers ---------------------------------------------------------------------------------------------

RECORDED = load_json("decoding/beams")
CASES = [(model, case) for model in RECORDED["models"] for case in model["cases"]]
NAMES = [
    f"{model['model']}, {case['ends']} ends, {case['length_penalty']}, {case['early_stopping']}"
    for model, case in CASES
]


@pytest.mark.parametrize(("model", "case"), CASES, ids=NAMES)
def test_texts_and_scores_equal_the_recorded_ones(model, case):
    width = RECORDED["beams"]
    options = {name: case[name] for name in ("length_penalty", "early_stopping", "repetition_penalty")}
    settings = searching(width, max_new_tokens=RECORDED["max_new_tokens"], **options)
    loaded = load_model(reference(model["model"]))
    rows = search_beams(loaded, model["prompts"], settings, best=width, eos_ids=case["eos_ids"])
    for ours, line in zip((text for row in rows for text in row), case["found"], strict=True):
        score, theirs = line.split(":")
        theirs = [int(id) for id in theirs.split()]
        assert (ours.finish == "end") == (theirs[-1] in case["eos_ids"])
        assert list(ours.ids) == (theirs[:-1] if ours.finish == "end" else theirs)
        assert ours.score == pytest.approx(float(score), rel=1e-5, abs=1e-5)


# --- of every family ---------------------------------------------------------------------------------------------

V = 40


def loud(model: nn.Module, noise: float = 0.4) -> nn.Module:
    """Random weights, norms and biases too; norms stay near 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.ge(1) + noise * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def gpt2() -> GPT2:
    return loud(GPT2(GPT2Config(n_positions=40, n_embd=16, n_layer=2, n_head=2, vocab_size=V)))


def with_prefix() -> GPT2:
    return loud(minipoet.add_prefix(gpt2(), num_virtual_tokens=3))


def with_lora() -> T5:
    return loud(minipoet.add_lora(t5(), rank=2, targets="all-linear"))


def qwen() -> Qwen2:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    sizes = {"hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 40}
    return loud(Qwen2(Qwen2Config(vocab_size=V, **heads, **sizes)))


def lstm() -> LSTM:
    return loud(LSTM(RNNConfig(vocab_size=V, n_embd=8, n_hidden=16, n_layer=2)), noise=1.0)


def t5() -> T5:
    return loud(T5(T5Config(vocab_size=V, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)))


FAMILIES = (gpt2, with_prefix, qwen, lstm, t5, with_lora)
PROMPTS = [[1, 5, 9], [7], [1, 7, 7, 7, 30, 31, 8], [1, 5, 9], [1, 39]]


def log_p(model: LanguageModel, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """log p of every token after the prompt and after each of the ids, read at once: (1 + len(ids), V)."""
    with torch.no_grad():
        if model.reads_source:
            logits = model(torch.tensor([[model.start_id, *ids]]), model.new_cache(torch.tensor([prompt])))
        else:
            logits = model(torch.tensor([prompt + ids]))
    return logits[0].log_softmax(-1)[-len(ids) - 1 :]


def ends(model: LanguageModel) -> list[int]:
    """Ids that its texts come to: some texts end there early, some late, some perhaps never."""
    rows = search_beams(model, PROMPTS, searching(4), best=4)
    return sorted({row[0].ids[-2] for row in rows} | {row[3].ids[4] for row in rows})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_what_the_model_gives_the_text_when_it_reads_it_anew(family):
    model, finishes = family(), set()
    for eos in ([], ends(model)):
        for prompt, row in zip(PROMPTS, search_beams(model, PROMPTS, searching(4), best=4, eos_ids=eos), strict=True):
            for text in row:
                finishes.add(text.finish)
                each = log_p(model, prompt, list(text.ids))
                total = sum(float(each[place, id]) for place, id in enumerate(text.ids))
                lasts, length = [0.0], len(text.ids)
                if text.finish == "end":  # which end it was is not told
                    lasts, length = each[-1, eos].tolist(), length + 1
                assert min(abs((total + last) / length - text.score) for last in lasts) < 1e-4
            assert [text.score for text in row] == sorted((text.score for text in row), reverse=True)
    assert finishes == {"length", "end"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_search_does_not_depend_on_its_neighbours(family):
    model = family()
    eos = ends(model)
    together = [[text.ids for text in row] for row in search_beams(model, PROMPTS, searching(3), best=3, eos_ids=eos)]
    for batch_size in (1, 7):  # 7 // 3 = 2 prompts
        rows = search_beams(model, PROMPTS, searching(3), best=3, eos_ids=eos, batch_size=batch_size)
        assert [[text.ids for text in row] for row in rows] == together
    assert together[0] == together[3]


@pytest.mark.parametrize("family", FAMILIES)
def test_with_room_for_every_text_the_search_finds_the_likeliest_of_all(family):
    """Three tokens of 3 that are allowed: 27 texts, and as many beams."""
    model, allowed = family(), (5, 6, 12)
    banned = [id for id in range(V) if id not in allowed]
    settings = searching(27, max_new_tokens=3)
    ((best, *others),) = search_beams(model, [[1, 5, 9]], settings, best=27, banned=banned)
    assert len(others) == 26
    every = {}
    for ids in product(allowed, repeat=3):
        each = log_p(model, [1, 5, 9], list(ids))
        every[ids] = float(sum(each[place, id] for place, id in enumerate(ids))) / 3
    assert best.ids == max(every, key=every.__getitem__)
    assert [text.score for text in (best, *others)] == pytest.approx(sorted(every.values(), reverse=True), abs=1e-4)


class Watched(GPT2):
    """Writes down the shapes of what it is asked to read."""

    def states(self, ids, cache=None, segments=None):
        self.shapes.append(tuple(ids.shape))
        return super().states(ids, cache, segments)


def test_equal_prompts_are_searched_once_and_a_search_that_is_over_leaves_the_batch():
    model = Watched(gpt2().config)
    model.load_state_dict(gpt2().state_dict())
    model.shapes = []
    limited = [[1] * 38, [1, 2], [1] * 38, [1, 2]]  # of 40 positions: the first can have 3 new tokens
    rows = search_beams(model.eval(), limited, searching(2, max_new_tokens=6))
    assert [len(row[0].ids) for row in rows] == [3, 6, 3, 6]
    assert [row[0].finish for row in rows] == ["context", "length"] * 2
    assert model.shapes == [(2, 38), (4, 1), (4, 1), (2, 1), (2, 1), (2, 1)]


def test_each_row_is_searched_with_its_own_adapter():
    model = gpt2()
    for seed, name in enumerate(("pushkin", "esenin")):
        minipoet.add_lora(model, rank=2, targets="all-linear", name=name, seed=seed)
    loud(model)
    names = ["esenin", None, "pushkin", "pushkin", None]
    together = search_beams(model, PROMPTS, searching(3), eos_ids=[2, 30], adapters=names)
    for prompt, name, row in zip(PROMPTS, names, together, strict=True):
        minipoet.set_adapter(model, name)
        (alone,) = search_beams(model, [prompt], searching(3), eos_ids=[2, 30])
        assert [text.ids for text in alone] == [text.ids for text in row]
    assert together[0][0].ids != together[3][0].ids  # the same prompt, another poet


def test_forbidden_ids_and_spare_rows_are_never_taken():
    banned = [id for id in range(30) if id not in (3, 17, 20)]
    for settings in (searching(5), searching(5, until_end=False), searching(5, repetition_penalty=1.5)):
        rows = search_beams(gpt2(), [[1], [2, 6]], settings, best=5, banned=banned, vocab_size=30, eos_ids=[17])
        assert {id for row in rows for text in row for id in text.ids} <= {3, 20}
        assert all(text.finish == "length" or settings.until_end for row in rows for text in row)


def test_where_there_are_fewer_texts_than_beams_all_of_them_are_found():
    ((*texts,),) = search_beams(SPLIT, [[END]], searching(9, max_new_tokens=1), best=9, eos_ids=[END])
    assert [(text.ids, text.finish) for text in texts] == [((A,), "length"), ((B,), "length"), ((), "end")]
    ((*texts,),) = search_beams(SPLIT, [[END]], searching(9, max_new_tokens=2), best=9, eos_ids=[END])
    assert len(texts) == 7  # the end; A or B and one of three


# --- text in, text out -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poet():
    tokenizer = train_bpe(["лимара солнце дола\nнад долом " * 5], 280, special_tokens=["<pad>", "<s>", "</s>"])
    torch.manual_seed(0)
    sizes = {"vocab_size": tokenizer.vocab_size + 5, "n_positions": 60, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return GPT2(GPT2Config(**sizes, initializer_range=0.4)).eval(), tokenizer


def test_samples_of_a_search_are_its_texts_best_first(poet):
    options = {"temperature": 0, "beams": 4, "max_new_tokens": 9}
    rows = generate_many(*poet, ["дол", "солнце"], samples=3, **options)
    for row, prompt in zip(rows, ("дол", "солнце"), strict=True):
        assert [poem.score for poem in row] == sorted((poem.score for poem in row), reverse=True)
        assert len({poem.ids for poem in row}) == 3
        assert generate(*poet, prompt, **options) == row[0].text == prompt + row[0].continuation
        assert "".join(stream(*poet, prompt, **options)) == row[0].text
        assert next(stream(*poet, prompt, **options)) == prompt


def test_the_seed_of_a_search_does_not_matter(poet):
    options = {"temperature": 0, "beams": 3, "max_new_tokens": 9}
    assert generate(*poet, "дол", seed=1, **options) == generate(*poet, "дол", seed=2, **options)


def test_what_contradicts_a_search_is_refused(poet):
    for options, message in (
        ({"beams": 4}, "beams=4 means a search, which draws nothing: give temperature=0"),
        ({"beams": 4, "temperature": 0, "stop": "\n"}, "stop strings end one text"),
        ({"length_penalty": 2}, "length_penalty is for a beam search: give beams"),
        ({"early_stopping": True}, "early_stopping is for a beam search"),
        ({"beams": 0}, "beams must be a whole number, 1 "),
        ({"beams": 2.5}, "beams must be a whole number"),
        ({"beams": 2, "length_penalty": math.nan}, "length_penalty must be a number from -10 to 10"),
        ({"beams": 2, "early_stopping": "never"}, "early_stopping must be True or False, got 'never'"),
    ):
        for call in (generate, stream):
            with pytest.raises(ValueError, match=message):
                call(*poet, "дол", **options)
    with pytest.raises(ValueError, match="2 beams find 2 texts: ask for no more samples, got 3"):
        generate_many(*poet, ["дол"], samples=3, beams=2, temperature=0)


def test_wrong_arguments_of_a_search_are_named_at_once():
    with pytest.raises(ValueError, match=r"2 beams find 2 texts, got best=3.*batch_size.*prompt 0 is empty"):
        search_beams(gpt2(), [[]], searching(2), best=3, batch_size=0)
    with pytest.raises(ValueError, match="a search needs beams=2 or more"):
        search_beams(gpt2(), [[1]], SamplingSettings())
    with pytest.raises(ValueError, match="on_token sees a poem grow"):
        generate_ids(gpt2(), [[1]], searching(), on_token=lambda poem, id: None)
    assert search_beams(gpt2(), [], searching()) == []


def test_broken_weights_are_told():
    model = Chain((0.2, 0.3, 0.5), (0.2, 0.3, 0.5), (math.nan, 0.5, 0.5))
    for prompts, batch_size in (([[A], [B]], 1), ([[A], [B]], 8)):
        with pytest.raises(ArithmeticError, match=r"poem 1 are not finite numbers at its new token 1"):
            search_beams(model, prompts, searching(max_new_tokens=1), batch_size=batch_size)
    with pytest.raises(ArithmeticError, match=r"poem 0 are not finite numbers at its new token 2"):
        search_beams(model, [[A]], searching())
    with pytest.raises(ArithmeticError, match="every token is forbidden"):
        search_beams(gpt2(), [[1]], searching(), banned=range(V))
