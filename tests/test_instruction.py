"""Requests and poems as ids to learn from (minipoet/training/instruction.py)."""

import math

import pytest
import torch

from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.text import Poem, read_corpus
from minipoet.text.excerpts import quatrains
from minipoet.text.requests import request
from minipoet.text.themes import Themes
from minipoet.tokenization import train_bpe
from minipoet.tokenization.chat import PLAIN, QWEN2_5, QWEN3
from minipoet.training import Batches, batch_loss
from minipoet.training.instruction import Examples, check_enough, examples, joined

QUATRAIN = "Над тихой речкой вечер поздний\nЗажёг далёкую звезду,\nИ воздух, ясный и морозный,\nПрозрачен стал на льду."


@pytest.fixture(scope="module")
def poems() -> list[Poem]:
    return read_corpus("embedded")[:24]


@pytest.fixture(scope="module")
def tokenizer(poems):
    texts = [poem.text for poem in poems] + [request(4, "осень", "Пушкина")] * 20
    return train_bpe(texts, 700, ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))


@pytest.mark.parametrize("template", [PLAIN, QWEN2_5, QWEN3])
@pytest.mark.parametrize("length", [200, 4000])
def test_examples_are_those_of_the_template_in_batches(poems, tokenizer, template, length):
    made = examples(poems, "Пушкина", template, tokenizer, length)
    expected = [template.example(tokenizer, *pair) for pair in zip(made.requests, made.texts, strict=True)]
    assert list(zip(made.ids, made.prompts, strict=True)) == expected


def test_example_is_request_poem_and_end(tokenizer):
    poem = Poem(f"{QUATRAIN}\n\n{QUATRAIN}", "Вечер")
    made = examples([poem], "Пушкина", PLAIN, tokenizer, 1000)
    asked = "Напиши стихотворение из 2 четверостиший на тему 'вечер' в стиле поэта Пушкина"
    assert (made.requests, made.texts, made.divided, made.cut_lines) == ([asked], [poem.text], 0, 0)
    (ids,), (prompt,) = made.ids, made.prompts
    assert tokenizer.decode(ids[:prompt], skip_special=False) == (
        f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(ids[prompt:], skip_special=False) == f"{poem.text}<|im_end|>"


def test_number_of_quatrains_is_the_real_one_or_is_not_said(tokenizer):
    poems = [
        Poem(QUATRAIN, "Звезда"),
        Poem(QUATRAIN.replace("\n", "\n\n", 1), "Речка"),
        Poem(f"{QUATRAIN}\nИ лес.", "Лёд"),
    ]
    asked = examples(poems, None, PLAIN, tokenizer, 1000).requests
    assert asked[0] == "Напиши стихотворение из 1 четверостишия на тему 'звезда'"
    assert all(text.startswith("Напиши стихотворение на тему '") for text in asked[1:])


@pytest.mark.parametrize("length", [90, 128, 200])
def test_no_example_is_longer_than_asked_and_nothing_is_lost(poems, tokenizer, length):
    made = examples(poems, "Пушкина", PLAIN, tokenizer, length)
    assert max(map(len, made.ids)) <= length
    assert made.divided == sum(len(ids) > length for ids in examples(poems, "Пушкина", PLAIN, tokenizer, 9999).ids)
    assert " ".join(" ".join(made.texts).split()) == " ".join(" ".join(poem.text for poem in poems).split())


@pytest.mark.parametrize("length", range(90, 140, 5))
def test_parts_fit_though_their_requests_are_longer_than_that_for_the_whole(poems, tokenizer, length):
    poem = Poem(poems[5].text, "Лёд")
    made = examples([poem], None, PLAIN, tokenizer, length)
    assert made.divided == 1
    assert max(map(len, made.ids)) <= length
    assert " ".join(" ".join(made.texts).split()) == " ".join(poem.text.split())


def test_parts_of_a_divided_poem_are_asked_for_by_what_is_in_them(tokenizer):
    stanzas = [
        QUATRAIN,
        "Белеет снег, и снег летает,\nИ снег ложится на поля,\nНикто его не подметает,\nИ спит под ним земля.",
    ]
    poem = Poem("\n\n".join(stanzas), "Два дня")
    themes = Themes.of([poem, *read_corpus("embedded")])
    whole = examples([poem], "Пушкина", PLAIN, tokenizer, 1000, themes)
    made = examples([poem], "Пушкина", PLAIN, tokenizer, len(whole.ids[0]) - 1, themes)
    assert made.texts == stanzas
    assert made.requests == [request(1, themes.salient(stanza), "Пушкина") for stanza in stanzas]
    assert "'снег" in made.requests[1]
    assert (made.divided, made.cut_lines) == (1, 0)
    assert all(quatrains(text) == 1 for text in made.texts)


def test_line_longer_than_the_room_is_cut_and_counted(tokenizer):
    poem = Poem("и снова снег летает над землёй " * 20 + "\nи всё.", "Снег")
    made = examples([poem], "Пушкина", PLAIN, tokenizer, 120)
    assert (made.divided, made.cut_lines) == (1, 1)
    assert max(map(len, made.ids)) <= 120
    assert " ".join(" ".join(made.texts).split()) == " ".join(poem.text.split())


def test_loss_is_that_of_poem_and_end_behind_the_request(poems, tokenizer):
    """Packed in rows beside others, an example costs what it costs alone; the request costs nothing."""
    made = examples(poems[:5], "Пушкина", PLAIN, tokenizer, 256)
    torch.manual_seed(0)
    model = Qwen2(Qwen2Config(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, rope_theta=10_000.0,
        tie_word_embeddings=True,
    )).eval()  # fmt: skip
    batches = Batches(made.ids, 256, rows=3, seed=0, prompts=made.prompts)
    assert batches.epoch_tokens() == sum(len(ids) - prompt for ids, prompt in zip(made.ids, made.prompts, strict=True))
    packed, tokens, alone = 0.0, 0, 0.0
    with torch.no_grad():
        for batch in batches.once():
            packed += float(batch_loss(model, batch))
            tokens += batch.tokens()
        for ids, prompt in zip(made.ids, made.prompts, strict=True):
            logits = model(torch.tensor([ids[:-1]]))[0, prompt - 1 :]
            alone += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[prompt:]), reduction="sum"))
    assert tokens == batches.epoch_tokens()
    assert math.isclose(packed, alone, rel_tol=1e-5)


def test_texts_are_tokenised_in_one_batch(poems, tokenizer):
    class Counting:
        def __init__(self):
            self.batches = []

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def encode_batch(self, texts):
            self.batches.append(list(texts))
            return tokenizer.encode_batch(texts)

    counting = Counting()
    examples(poems, "Пушкина", PLAIN, counting, 4000)
    assert [batch for batch in counting.batches if len(batch) > 4] == [[poem.text for poem in poems]]
    assert sum(poems[0].text in text for batch in counting.batches for text in batch) == 1


def test_examples_of_several_poets_are_joined(poems, tokenizer):
    themes = Themes.of(poems)
    first, second = (
        examples(some, poet, PLAIN, tokenizer, 200, themes)
        for some, poet in ((poems[:3], "Пушкина"), (poems[3:6], "Фета"))
    )
    both = joined([first, second])
    assert both.ids == first.ids + second.ids and both.prompts == first.prompts + second.prompts
    assert both.requests == first.requests + second.requests and both.texts == first.texts + second.texts
    assert both.divided == first.divided + second.divided
    assert joined([]) == Examples([], [], [], [], 0, 0)


def test_author_with_too_few_poems_is_told_with_the_number(poems):
    check_enough("Лермонтов", poems[:20])
    check_enough("Лермонтов", poems[:3], least=3)
    with pytest.raises(ValueError, match=r"^Лермонтов has 3 poems, but 20 are needed at least: "):
        check_enough("Лермонтов", poems[:3])
    with pytest.raises(ValueError, match=r"^Лермонтов has 1 poem, but 2 "):
        check_enough("Лермонтов", poems[:1], least=2)


def test_careless_calls_are_told(poems, tokenizer):
    with pytest.raises(ValueError, match="There is no poem to make an example of"):
        examples([], None, PLAIN, tokenizer, 256)
    with pytest.raises(
        ValueError, match=r"length=40 leaves no room for verse: the request alone takes \d+ tokens \(Напиши "
    ):
        examples(poems, "Пушкина", PLAIN, tokenizer, 40)
    with pytest.raises(ValueError, match="length=0"):
        examples(poems, None, PLAIN, tokenizer, 0)
    with pytest.raises(ValueError, match="The template must be a ChatTemplate"):
        examples(poems, None, "chatml", tokenizer, 256)
    with pytest.raises(ValueError, match="themes must be Themes"):
        examples(poems, None, PLAIN, tokenizer, 256, "осень")
    with pytest.raises(ValueError, match="The poet must be some words"):
        examples(poems, "", PLAIN, tokenizer, 256)
    silent = train_bpe(["раз два"], 300, ("<|endoftext|>",))
    with pytest.raises(ValueError, match=r"no chat form: its tokenizer lacks <\|im_start\|> and <\|im_end\|>"):
        examples(poems, None, PLAIN, silent, 256)
