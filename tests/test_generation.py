"""Generation with tiny random models: the loop over ids, and text in, text out."""

import pytest
import torch
from reference_data import load_json, load_tensors, reference

import minipoet
from minipoet.generation import SamplingSettings, chat, generate, generate_ids, generate_many, generate_steps, stream
from minipoet.generation.sampling import penalise_repetition
from minipoet.models import load_model
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.t5 import T5, T5Config
from minipoet.tokenization import train_bpe

GREEDY = SamplingSettings(temperature=0, max_new_tokens=12)
WARM = SamplingSettings(temperature=1.3, top_p=0.95, max_new_tokens=12, seed=4)
PROMPTS = [[1, 5, 9], [1], [1, 7, 7, 7, 30, 31, 8], [1, 5, 9], [1, 40]]
TEXTS = ["лима ро", "дол", "солнце лимара над долом,\n"]
INVENTED = "лимара солнце дола\nнад долом лимара\n\nсолнце над долом дома\nрома дол лима " * 3


def tiny(**options) -> GPT2:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    return GPT2(GPT2Config(**(sizes | options))).eval()


class Syllables:
    """A tokenizer without bytes: a token is a syllable, the longest that fits is taken."""

    names = ("<pad>", "<s>", "</s>")
    syllables = ("ли", "ма", "ра", "ро", "со", "лн", "це", "до", "ле", "на", "\n", " ", *"лмрсоцдеанбвгкптя.,!")
    vocab_size = len(names) + len(syllables)
    special_ids = {name: id for id, name in enumerate(names)}  # noqa: RUF012
    pad_id, bos_id, eos_id, eos_ids, spare_ids = 0, 1, 2, (2,), ()

    def encode(self, text: str) -> list[int]:
        ids = []
        while text:
            syllable = max((s for s in self.syllables if text.startswith(s)), key=len)
            ids.append(3 + self.syllables.index(syllable))
            text = text[len(syllable) :]
        return ids

    def encode_batch(self, texts) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids, skip_special: bool = True) -> str:
        return "".join(self.syllables[id - 3] if id >= 3 else "" for id in ids)


@pytest.fixture(params=["bpe", "syllables"])
def poet(request) -> tuple[GPT2, object]:
    """A model, with spare rows, and a tokenizer, with bytes and without."""
    specials = {"special_tokens": ["<pad>", "<s>", "</s>"]}
    tokenizer = train_bpe([INVENTED], 290, **specials) if request.param == "bpe" else Syllables()
    return tiny(vocab_size=tokenizer.vocab_size + 5, n_positions=64), tokenizer


class Watched(GPT2):
    """Writes down the shapes of what it is asked to read."""

    def states(self, ids, cache=None, segments=None):
        self.shapes.append(tuple(ids.shape))
        self.padded.append(segments is not None)
        return super().states(ids, cache, segments)


def watched() -> Watched:
    model = Watched(tiny().config)
    model.load_state_dict(tiny().state_dict())
    model.shapes, model.padded = [], []
    return model


# --- the loop over ids -------------------------------------------------------------------------------------------


def test_greedy_with_a_cache_equals_greedy_by_reading_all_anew():
    model, ids = tiny(), [1, 5, 9]
    with torch.no_grad():
        for _ in range(12):
            ids = [*ids, int(model(torch.tensor([ids]))[0, -1].argmax())]
    assert list(generate_ids(model, [[1, 5, 9]], GREEDY)[0].ids) == ids[3:]


@pytest.mark.parametrize(
    "case",
    load_json("decoding/greedy")["cases"],
    ids=lambda case: f"{case['eos_token_id']}-{case['repetition_penalty']}",
)
def test_greedy_continuations_of_a_padded_batch_equal_the_recorded_ones(case):
    recorded = load_json("decoding/greedy")
    settings = SamplingSettings(
        temperature=0, max_new_tokens=recorded["max_new_tokens"], repetition_penalty=case["repetition_penalty"]
    )
    eos = [] if case["eos_token_id"] is None else [case["eos_token_id"]]
    done = generate_ids(load_model(reference("gpt2/plain")), recorded["prompts"], settings, eos_ids=eos)
    for ours, theirs in zip(done, case["new_ids"], strict=True):
        if eos and eos[0] in theirs:
            theirs = theirs[: theirs.index(eos[0])]
            assert ours.finish == "end"
        assert list(ours.ids) == theirs


def test_spare_rows_of_the_model_are_never_chosen():
    recorded, sizes = load_tensors("gpt2/padded.outputs"), load_json("gpt2/padded")
    ids, model = recorded["ids"], load_model(reference("gpt2/padded"))
    settings = SamplingSettings(temperature=0, max_new_tokens=15)
    for size, name in ((sizes["embedding_rows"], "greedy"), (sizes["tokenizer_size"], "greedy_without_spare_rows")):
        done = generate_ids(model, ids.tolist(), settings, vocab_size=size)
        assert [list(new.ids) for new in done] == recorded[name][:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("settings", [GREEDY, WARM, SamplingSettings(repetition_penalty=1.4, max_new_tokens=12)])
def test_a_poem_does_not_depend_on_its_neighbours(settings):
    model, seeds = tiny(), [11, 12, 13, 14, 15]
    together = generate_ids(model, PROMPTS, settings, seeds=seeds)
    for batch_size in (1, 2):
        assert generate_ids(model, PROMPTS, settings, seeds=seeds, batch_size=batch_size) == together
    for prompt, seed, poem in zip(PROMPTS, seeds, together, strict=True):
        assert generate_ids(model, [prompt], settings, seeds=[seed]) == [poem]
    backwards = generate_ids(model, PROMPTS[::-1], settings, seeds=seeds[::-1])
    assert backwards[::-1] == together


def test_a_poem_does_not_depend_on_when_its_neighbours_end():
    model, seeds = tiny(), [11, 12, 13, 14, 15]
    free = generate_ids(model, PROMPTS, WARM, seeds=seeds)
    eos = free[0].ids[3]
    ended = generate_ids(model, PROMPTS, WARM, seeds=seeds, eos_ids=[eos])
    for with_end, without in zip(ended, free, strict=True):
        end = without.ids.index(eos) if eos in without.ids else 12
        assert with_end.ids == without.ids[:end]
        assert with_end.finish == ("end" if eos in without.ids else "length")
    assert {new.finish for new in ended} == {"end", "length"}


def test_poems_that_have_ended_leave_the_batch_and_equal_prompts_are_read_once():
    model = watched()
    lengths = [3, 1, 6, 2]
    counts = [0, 0, 0, 0]

    def on_token(poem: int, id: int) -> bool:
        counts[poem] += 1
        return counts[poem] == lengths[poem]

    done = generate_ids(model, [[1, 5, 9]] * 4, WARM, on_token=on_token)
    assert [len(new.ids) for new in done] == lengths
    assert {new.finish for new in done} == {"stop"}
    assert model.shapes == [(1, 3), (3, 1), (2, 1), (1, 1), (1, 1), (1, 1)]


def test_prompts_of_one_length_need_no_mask():
    model = watched()
    generate_ids(model, [[1, 2, 3], [1, 3, 2]], GREEDY)
    assert not any(model.padded)
    model.padded.clear()
    generate_ids(model, [[1, 2, 3], [1, 3]], GREEDY)
    assert model.padded == [True] + [False] * 11


def test_forbidden_ids_are_never_drawn():
    hot = SamplingSettings(temperature=1000, top_p=1, max_new_tokens=30)
    allowed = {3, 17, 20}
    banned = [id for id in range(25) if id not in allowed]
    done = generate_ids(tiny(), [[1]] * 20, hot, banned=banned, vocab_size=25)
    assert {id for new in done for id in new.ids} == allowed


def test_without_until_end_the_end_is_never_drawn():
    hot = {"temperature": 1000, "top_p": 1, "max_new_tokens": 30}
    done = generate_ids(tiny(vocab_size=6), [[1]] * 8, SamplingSettings(**hot, until_end=False), eos_ids=[2, 3])
    assert all(len(new.ids) == 30 and new.finish == "length" for new in done)
    done = generate_ids(tiny(vocab_size=6), [[1]] * 8, SamplingSettings(**hot), eos_ids=[2, 3])
    assert all(len(new.ids) < 30 and new.finish == "end" for new in done)


def test_a_poem_ends_where_the_context_ends():
    model = tiny(n_positions=10)
    long = SamplingSettings(temperature=0, max_new_tokens=99)
    done = generate_ids(model, [[1] * 10, [1, 2, 3], [1]], long)
    assert [len(new.ids) for new in done] == [1, 8, 10]  # the last one is not read any more
    assert {new.finish for new in done} == {"context"}
    ten = SamplingSettings(temperature=0, max_new_tokens=10)
    assert [new.finish for new in generate_ids(model, [[1, 2, 3], [1]], ten)] == ["context", "length"]


def test_a_text_at_the_end_of_the_context_equals_one_read_anew():
    model, prompt = tiny(n_positions=10), [1, 2, 3]
    new = generate_ids(model, [prompt], SamplingSettings(temperature=0, max_new_tokens=99))[0].ids
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *new[:-1]]]))
    assert logits.shape[1] == 10
    assert logits[0, 2:].argmax(-1).tolist() == list(new)


def test_wrong_prompts_are_named_at_once():
    with pytest.raises(
        ValueError, match=r"prompt 1 is empty.*prompt 2 is 41 tokens.*at most 40.*prompt 3 has the id 77"
    ):
        generate_ids(tiny(), [[1], [], [1] * 41, [77]], GREEDY, vocab_size=50)


def test_stop_strings_are_not_silently_ignored():
    with pytest.raises(ValueError, match="stop strings are text"):
        generate_ids(tiny(), [[1]], SamplingSettings(stop="\n"))


@pytest.mark.parametrize("settings", [GREEDY, WARM])
def test_broken_weights_are_told(settings):
    model = tiny()
    torch.nn.init.constant_(model.norm.weight, float("nan"))
    with pytest.raises(ArithmeticError, match="not finite numbers at its new token 1"):
        generate_ids(model, [[1]], settings)


def test_dropout_is_off_and_the_mode_of_each_module_comes_back():
    model, calm = tiny(resid_pdrop=0.5).train(), tiny()
    model.blocks[0].eval()
    before = [module.training for module in model.modules()]
    steps = generate_steps(model, [[1, 2]], [0], GREEDY)
    next(steps)
    steps.close()
    assert generate_ids(model, [[1, 2]], GREEDY) == generate_ids(calm, [[1, 2]], GREEDY)
    assert [module.training for module in model.modules()] == before
    assert not torch.is_inference_mode_enabled()


# --- text in, text out -------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_poem(poet):
    options = {"temperature": 1.5, "max_new_tokens": 20, "seed": 3}
    poem = generate(*poet, TEXTS[0], **options)
    assert generate(*poet, TEXTS[0], **options) == poem
    assert poem.startswith(TEXTS[0])
    assert generate(*poet, TEXTS[0], **(options | {"seed": 4})) != poem


def test_fewer_tokens_are_the_beginning_of_more(poet):
    long = generate_many(*poet, TEXTS, max_new_tokens=20)
    short = generate_many(*poet, TEXTS, max_new_tokens=7)
    for (many,), (few,) in zip(long, short, strict=True):
        assert many.ids[:7] == few.ids


@pytest.mark.parametrize("stop", [(), "\n", ("ма", "о", " ")])
def test_the_stream_spells_what_generate_returns(poet, stop):
    for seed in range(5):
        options = {"temperature": 2.0, "top_p": 1.0, "max_new_tokens": 25, "seed": seed, "stop": stop}
        pieces = list(stream(*poet, TEXTS[1], **options))
        assert "".join(pieces) == generate(*poet, TEXTS[1], **options)
        assert pieces[0] == TEXTS[1]
        assert all(pieces)


def test_samples_are_different_and_the_first_is_that_of_one_sample(poet):
    options = {"temperature": 1.5, "max_new_tokens": 15, "seed": 8}
    three = generate_many(*poet, TEXTS, samples=3, **options)
    one = generate_many(*poet, TEXTS, samples=1, **options)
    assert [len(poems) for poems in three] == [3, 3, 3]
    for poems, (first,) in zip(three, one, strict=True):
        assert poems[0] == first
        assert len({poem.ids for poem in poems}) == 3
    assert three[0][0].text == generate(*poet, TEXTS[0], **options)
    assert generate_many(*poet, TEXTS, samples=3, batch_size=2, **options) == three


def test_each_poem_can_be_made_again_by_itself(poet):
    options = {"temperature": 1.5, "max_new_tokens": 15}
    for poems in generate_many(*poet, TEXTS, samples=2, seed=6, **options):
        for poem in poems:
            assert generate(*poet, poem.prompt, seed=poem.seed, **options) == poem.text


def test_a_stop_string_split_over_tokens_ends_the_poem():
    tokenizer = Syllables()
    model = tiny(vocab_size=tokenizer.vocab_size)
    options = {"temperature": 2.0, "top_p": 1.0, "max_new_tokens": 30, "until_end": False}
    ((free,),) = generate_many(model, tokenizer, ["до"], **options)
    left, right = (tokenizer.decode([id]) for id in free.ids[10:12])
    stop = left[-1] + right[0]
    ((cut,),) = generate_many(model, tokenizer, ["до"], **options, stop=["ъъъ", stop])
    assert cut.continuation == free.continuation[: free.continuation.index(stop)]
    assert cut.finish == "stop"
    assert cut.ids == free.ids[: len(cut.ids)]
    assert stop in tokenizer.decode(cut.ids)
    assert stop not in tokenizer.decode(cut.ids[:-1])


def test_special_tokens_and_spare_rows_are_never_drawn(poet):
    model, tokenizer = poet
    options = {"temperature": 1000.0, "top_p": 1.0, "max_new_tokens": 60, "until_end": False}
    poems = generate_many(model, tokenizer, ["дол"], samples=30, **options)[0]
    drawn = {id for poem in poems for id in poem.ids}
    assert drawn <= set(range(3, tokenizer.vocab_size))
    assert len(drawn) > 0.9 * (tokenizer.vocab_size - 3)
    assert {poem.finish for poem in poems} <= {"length", "context"}


def test_the_prompt_is_read_after_the_start_token_and_without_spaces_at_its_end(poet):
    model, tokenizer = poet
    settings = SamplingSettings(temperature=0, max_new_tokens=6)
    for prompt, read in (("дол  ", "дол"), ("дол\n", "дол\n"), (" дол \n ", " дол \n")):
        ((poem,),) = generate_many(model, tokenizer, [prompt], temperature=0, max_new_tokens=6)
        assert poem.prompt == read
        ids = [tokenizer.bos_id, *tokenizer.encode(read)]
        banned = [tokenizer.pad_id, tokenizer.bos_id]
        rules = {"eos_ids": [tokenizer.eos_id], "banned": banned, "vocab_size": tokenizer.vocab_size}
        assert generate_ids(model, [ids], settings, **rules)[0].ids == poem.ids
        ((bare,),) = generate_many(model, tokenizer, [prompt], start=False, temperature=0, max_new_tokens=6)
        assert generate_ids(model, [ids[1:]], settings, **rules)[0].ids == bare.ids


class Words(Syllables):
    """As SentencePiece: a space belongs to the token after it, and decoding drops the one at the start of a text."""

    def decode(self, ids, skip_special: bool = True) -> str:
        return "".join(f" w{id}" for id in ids if id >= 3)[1:]


def test_the_first_new_word_keeps_the_space_before_it():
    tokenizer = Words()
    poem = generate(tiny(vocab_size=tokenizer.vocab_size), tokenizer, "дол", max_new_tokens=3, until_end=False)
    assert poem.startswith("дол w")


@pytest.mark.parametrize("prompt", ["", "  ", "\n\t "])
def test_an_empty_prompt_is_refused_with_what_to_do(poet, prompt):
    for call in (generate, stream):
        with pytest.raises(ValueError, match="prompt is empty: give the first word"):
            call(*poet, prompt)
    with pytest.raises(ValueError, match=r"Prompts \[1, 2\] are empty"):
        generate_many(*poet, ["дол", prompt, prompt])


def test_a_prompt_longer_than_the_context_is_refused(poet):
    for call in (generate, stream):
        with pytest.raises(ValueError, match=r"tokens long, but this model reads at most 64: shorten it by \d+"):
            call(*poet, "дол!\n" * 60)


def test_wrong_arguments_are_refused(poet):
    model, tokenizer = poet
    with pytest.raises(ValueError, match="got one string"):
        generate_many(model, tokenizer, "дол")
    with pytest.raises(ValueError, match="must be a string, got list"):
        generate(model, tokenizer, ["дол"])
    with pytest.raises(ValueError, match="samples must be at least 1"):
        generate_many(model, tokenizer, ["дол"], samples=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        generate_many(model, tokenizer, ["дол"], batch_size=0)
    with pytest.raises(ValueError, match=r"top_p must be.*, got 7"):
        stream(model, tokenizer, "дол", top_p=7)
    with pytest.raises(ValueError, match="do not belong together"):
        generate(tiny(vocab_size=tokenizer.vocab_size - 1), tokenizer, "дол")
    assert generate_many(model, tokenizer, []) == []


# --- the prompt as a source --------------------------------------------------------------------------------------


class Sources(T5):
    """Writes down the shapes of what its encoder reads, and of what its decoder does."""

    def encode(self, ids, segments=None, prefix=None):
        self.encoded.append(tuple(ids.shape))
        return super().encode(ids, segments, prefix)

    def states(self, ids, cache=None, segments=None):
        self.decoded.append(tuple(ids.shape))
        return super().states(ids, cache, segments)


def writer(**options) -> Sources:
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    model, generator = Sources(T5Config(**(sizes | options))), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.ge(1) + 0.4 * torch.randn(parameter.shape, generator=generator))
    model.encoded, model.decoded = [], []
    return model.eval()


@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_what_is_written_about_a_source_equals_what_reading_all_anew_gives(penalty):
    model, source, ids = writer(), [5, 9, 30, 1], [0]
    with torch.no_grad():
        for _ in range(12):
            logits = model(torch.tensor([ids]), model.new_cache(torch.tensor([source])))[:, -1]
            seen = torch.zeros(1, 50, dtype=torch.bool)
            seen[0, ids] = True  # what is written counts, the source does not
            ids = [*ids, int(penalise_repetition(logits, seen, penalty).argmax())]
    settings = SamplingSettings(temperature=0, max_new_tokens=12, repetition_penalty=penalty)
    assert list(generate_ids(model, [source], settings)[0].ids) == ids[1:]


@pytest.mark.parametrize("settings", [GREEDY, WARM, SamplingSettings(repetition_penalty=1.4, max_new_tokens=12)])
def test_a_text_does_not_depend_on_the_sources_beside_it(settings):
    model, seeds = writer(), [11, 12, 13, 14, 15]
    together = generate_ids(model, PROMPTS, settings, seeds=seeds)
    for prompt, seed, text in zip(PROMPTS, seeds, together, strict=True):
        assert generate_ids(model, [prompt], settings, seeds=[seed]) == [text]
    ended = generate_ids(model, PROMPTS, settings, seeds=seeds, eos_ids=[together[0].ids[3]])
    for with_end, without in zip(ended, together, strict=True):
        assert with_end.ids == without.ids[: len(with_end.ids)]
    assert ended[0].finish == "end"


def test_equal_sources_are_read_once_and_texts_that_have_ended_leave_the_batch():
    model, lengths, counts = writer(), [3, 1, 6, 2], [0] * 4

    def on_token(poem: int, id: int) -> bool:
        counts[poem] += 1
        return counts[poem] == lengths[poem]

    generate_ids(model, [[1, 5, 9]] * 4, WARM, on_token=on_token)
    assert model.encoded == [(1, 3)]
    assert model.decoded == [(1, 1), (3, 1), (2, 1), (1, 1), (1, 1), (1, 1)]


def test_a_long_source_takes_nothing_from_what_may_be_written():
    (text,) = generate_ids(writer(), [[7] * 700], SamplingSettings(temperature=0, max_new_tokens=600))
    assert len(text.ids) == 600
    assert text.finish == "length"


def test_sources_of_several_adapters_are_one_batch():
    model = writer()
    for seed, name in enumerate(("pushkin", "esenin")):
        minipoet.add_lora(model, rank=2, targets="all-linear", name=name, seed=seed)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    names = ["pushkin", None, "esenin", "esenin", "pushkin"]
    model.encoded.clear()
    together = generate_ids(model, PROMPTS, GREEDY, adapters=names)
    assert model.encoded == [(5, 7)]
    for prompt, name, text in zip(PROMPTS, names, together, strict=True):
        minipoet.set_adapter(model, name)
        assert generate_ids(model, [prompt], GREEDY) == [text]
    assert together[0] != together[3]


def test_the_text_of_a_source_is_what_is_written_about_it():
    tokenizer = Syllables()
    model = writer(vocab_size=tokenizer.vocab_size + 2)
    options = {"max_new_tokens": 9, "temperature": 1.5, "seed": 3}
    rules = {"eos_ids": [2], "banned": [0, 1], "vocab_size": tokenizer.vocab_size}
    for prompt in ("лимара", "дол!"[:3] + "  "):
        ((made,),) = generate_many(model, tokenizer, [prompt], **options)
        ids = [*tokenizer.encode(prompt.rstrip()), tokenizer.eos_id]  # no start token, and an end
        assert made.ids == generate_ids(model, [ids], SamplingSettings(**options), **rules)[0].ids
        assert made.prompt == prompt.rstrip()
        assert made.text == made.continuation == tokenizer.decode(made.ids)
        assert generate(model, tokenizer, prompt, **options) == made.text
        assert "".join(stream(model, tokenizer, prompt, **options)) == made.text
        searched = generate(model, tokenizer, prompt, temperature=0, beams=3, max_new_tokens=9)
        assert "".join(stream(model, tokenizer, prompt, temperature=0, beams=3, max_new_tokens=9)) == searched


def test_the_first_word_about_a_source_has_no_space_before_it():
    tokenizer = Words()
    text = generate(writer(vocab_size=tokenizer.vocab_size), tokenizer, "дол", max_new_tokens=3, until_end=False)
    assert text.startswith("w") and text.count(" w") == 2


def test_what_makes_no_sense_with_a_source_is_refused():
    tokenizer = Syllables()
    model = writer(vocab_size=tokenizer.vocab_size)
    for call in (generate, stream):
        with pytest.raises(ValueError, match="start=False is for a model that goes on from its prompt"):
            call(model, tokenizer, "дол", start=False)
        with pytest.raises(ValueError, match="prompt is empty: say what the text is to be about"):
            call(model, tokenizer, " ")
    with pytest.raises(ValueError, match="A Sources writes about a source and does not talk"):
        chat(model, tokenizer, "дол")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_seed_means_the_same_on_a_gpu():
    model = tiny()
    on_cpu = generate_ids(model, PROMPTS, WARM)
    assert generate_ids(model.cuda(), PROMPTS, WARM) == on_cpu
