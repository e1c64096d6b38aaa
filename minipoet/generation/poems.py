"""From a prompt to a poem: text in, text out.

    generate         one prompt -> the text of one poem
    stream           the same text, piece by piece while it is written
    generate_many    several prompts, several poems of each -> Generated: text, continuation, why it ended, its seed

All three take the fields of `SamplingSettings` by name and give the same text for the same prompt, settings and seed.

A prompt is continued exactly where it stops: "Мороз и солн" in the middle of the word, a prompt that ends with a line
break on a new line. Only spaces at its end are taken away: in the vocabularies of GPT-2's kind a space belongs to the
word after it, and after a single one no word that the model knows would fit. What the model reads is the token that
begins a text (`tokenization.start_id`) and the prompt. For an encoder–decoder the prompt is the source, read with the
token that ends a text behind it, and the text is what is written about it.

Chapter: docs/generation.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from minipoet.checks import each, expect, expect_model, expect_tokenizer, is_whole, known_names, shown
from minipoet.generation.beams import search_beams
from minipoet.generation.loop import generate_ids, generate_steps
from minipoet.generation.noise import poem_seed
from minipoet.generation.prompts import Continuation, as_adapters, check_prompts
from minipoet.generation.settings import SamplingSettings
from minipoet.generation.stops import StopStrings
from minipoet.models.base import LanguageModel
from minipoet.tokenization.base import StreamDecoder, Tokenizer, start_id


@dataclass(frozen=True)
class Generated:
    """One poem.

    prompt: what it was made from, without spaces at the end.
    continuation: what the model wrote, without the stop string.
    text: the whole poem, prompt and continuation; the continuation alone if the prompt was an encoder's source.
    ids: the new tokens, without the end token; after "stop" the last of them spell the stop string.
    finish: "end" (the model ended the poem), "stop", "length" (max_new_tokens) or "context" (no more fits).
    seed: `generate` with this seed and the same settings writes this poem again. (A beam search has no use for it.)
    score: what a beam search went by (beams.py), else None.
    """

    prompt: str
    continuation: str
    text: str
    ids: tuple[int, ...]
    finish: str
    seed: int
    score: float | None = None


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    start: bool = True,
    adapters: Sequence[str | None] | None = None,
    **settings: Any,
) -> str:
    """One poem that begins with the prompt: its whole text; of an encoder–decoder what it writes about the prompt.

    settings: the fields of `SamplingSettings`: max_new_tokens=80, temperature=0.8, top_p=0.9, top_k=0, min_p=0.0,
    repetition_penalty=1.0, stop=(), until_end=True, seed=0; for a beam search temperature=0 and beams=4, say, with
    length_penalty=1.0, early_stopping=False.
    start=False leaves out the token that begins a text: for models that never learnt it, or to go on in mid-text.
    adapters: [name] of the adapter that writes, [None] for the plain base; else it is the active one.
    Raises ValueError for an empty prompt, one longer than the model's context, and settings that make no sense.
    """
    options = as_settings(settings)  # samples and batch_size are none
    return generate_many(model, tokenizer, _one(prompt), start=start, adapters=adapters, **asdict(options))[0][0].text


def stream(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str, *, start: bool = True, **settings: Any
) -> Iterator[str]:
    """The text of `generate` in pieces of whole letters, the prompt first, each as soon as it is certain.

    What may be the start of a stop string is held back until it is known, and a beam search knows its text at the end.
    Arguments and errors as for `generate`; the errors come with the call, not with the first piece.
    """
    options = as_settings(settings)
    (text,), (ids,) = _read_prompts(model, tokenizer, _one(prompt), start)
    check_prompts(model, [ids])
    return pieces(model, tokenizer, text, ids, options, endings(tokenizer))


def generate_many(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    samples: int = 1,
    batch_size: int = 32,
    start: bool = True,
    adapters: Sequence[str | None] | None = None,
    **settings: Any,
) -> list[list[Generated]]:
    """`samples` poems of each prompt, a list a prompt, always; at most batch_size poems are written at the same time.

    Sample j of prompt i is drawn with `poem_seed(seed, i, j)`, so it does not depend on how many poems there are or on
    batch_size (but for rounding: docs/generation.md). With beams=n the samples are the best texts that were found, n at
    most, best first; a beam counts as one in batch_size. adapters: the name of the adapter that writes each prompt's
    poems, None for the plain base; without it the active one writes all. Other arguments and errors as for `generate`.
    """
    options = as_settings(settings)
    texts, ids = _read_prompts(model, tokenizer, prompts, start)
    return write_all(model, tokenizer, texts, ids, options, samples, batch_size, adapters, endings(tokenizer))


def write_all(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    ids: Sequence[Sequence[int]],
    options: SamplingSettings,
    samples: int,
    batch_size: int,
    adapters: Sequence[str | None] | None,
    ends: Mapping[str, Any],
) -> list[list[Generated]]:
    """`samples` continuations of each text, read as its ids; what ends them and what is never drawn is in `ends`."""
    if not is_whole(samples, 1):
        raise ValueError(f"samples must be at least 1, got {shown(samples)}.")
    if samples > options.beams > 1:
        raise ValueError(f"{options.beams} beams find {options.beams} texts: ask for no more samples, got {samples}.")
    adapters = as_adapters(adapters, len(texts))
    poems = [(i, j) for i in range(len(texts)) for j in range(samples)]
    writers = {(i, j): _Writer(tokenizer, _before(model, ids[i]), options) for i, j in poems}
    found: dict[tuple[int, int], Continuation] = {}
    if options.beams > 1:
        best = search_beams(model, ids, options, best=samples, batch_size=batch_size, adapters=adapters, **ends)
        found |= {(i, j): new for i, row in enumerate(best) for j, new in enumerate(row)}
        for poem, new in found.items():
            writers[poem].push_all(new.ids)
    else:
        drawn = generate_ids(
            model,
            [ids[i] for i, _ in poems],
            options,
            seeds=[poem_seed(options.seed, i, j) for i, j in poems],
            batch_size=batch_size,
            on_token=lambda poem, id: writers[poems[poem]].push(id),
            adapters=None if adapters is None else [adapters[i] for i, _ in poems],
            **ends,
        )
        found |= zip(poems, drawn, strict=True)
    done: list[list[Generated]] = [[] for _ in texts]
    for (i, j), new in found.items():
        made, finish = writers[i, j].finish(new.finish)
        whole = made if model.reads_source else texts[i] + made
        done[i].append(Generated(texts[i], made, whole, new.ids, finish, poem_seed(options.seed, i, j), new.score))
    return done


def pieces(
    model: LanguageModel,
    tokenizer: Tokenizer,
    text: str,
    ids: list[int],
    options: SamplingSettings,
    ends: Mapping[str, Any],
) -> Iterator[str]:
    """The text, if there is any, and then what the model writes behind its ids, in pieces of whole letters."""
    if text and not model.reads_source:
        yield text
    writer = _Writer(tokenizer, _before(model, ids), options)
    told = 0
    if options.beams > 1:  # nothing is certain until all is
        writer.push_all(generate_ids(model, [ids], options, **ends)[0].ids)
    else:
        steps = generate_steps(model, [ids], [options.seed], options, on_token=lambda _, id: writer.push(id), **ends)
        for _ in steps:
            if piece := writer.text[told:]:
                yield piece
                told += len(piece)
    if piece := writer.finish("")[0][told:]:
        yield piece


def _before(model: LanguageModel, prompt: Sequence[int]) -> Sequence[int]:
    """What the new tokens go on from: the prompt, but nothing if it is the source of an encoder."""
    return () if model.reads_source else prompt


class _Writer:
    """The ids of one poem, as they come, to text without the stop string."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int], options: SamplingSettings) -> None:
        self.text = ""
        self._decoder = StreamDecoder(tokenizer)
        self._stops = StopStrings(options.stop)
        for id in prompt:  # a word may take its space from what stands before it
            self._decoder.push(id)

    def push(self, id: int) -> bool:
        """Take the next id; True if a stop string is complete."""
        self.text += self._stops.push(self._decoder.push(id))
        return self._stops.found

    def push_all(self, ids: Iterable[int]) -> None:
        """Take many."""
        for id in ids:
            self.push(id)

    def finish(self, reason: str) -> tuple[str, str]:
        """The whole text, with what was held back, and why it ended: `reason`, unless a stop string was in the rest."""
        self.text += self._stops.push(self._decoder.finish()) + self._stops.finish()
        return self.text, "stop" if self._stops.found else reason


def expect_pair(model: LanguageModel, tokenizer: Tokenizer) -> None:
    """Raise ValueError for what is no model, no tokenizer, or two that do not belong together."""
    expect_model(model)
    expect_tokenizer(tokenizer)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocab_size} ids and the model knows only {model.config.vocab_size}: "
            "they do not belong together."
        )


def _one(prompt: str) -> list[str]:
    expect(prompt, str, "The prompt", "a string", "for several use generate_many")
    return [prompt]


def as_settings(values: Mapping[str, Any]) -> SamplingSettings:
    """Settings given by name. Raises ValueError that lists the unknown names."""
    known_names(values, [field.name for field in fields(SamplingSettings)], "SamplingSettings")
    return SamplingSettings(**values)


def _read_prompts(
    model: LanguageModel, tokenizer: Tokenizer, prompts: Sequence[str], start: bool
) -> tuple[list[str], list[list[int]]]:
    """Texts without spaces at the end, and what the model reads. Raises ValueError for empty prompts, all at once."""
    expect_pair(model, tokenizer)
    prompts = list(each(prompts, str, "The prompts", "strings"))
    empty = [i for i, prompt in enumerate(prompts) if not prompt.strip()]
    if empty:
        which = f"Prompts {empty} are" if len(prompts) > 1 else "The prompt is"
        raise ValueError(
            f"{which} empty: say what the text is to be about."
            if model.reads_source
            else f"{which} empty: give the first word or line of the poem. (To start from nothing, call generate_ids "
            "with [[tokenizer.bos_id]].)"
        )
    texts = [prompt.rstrip(" ") for prompt in prompts]
    if model.reads_source:
        return texts, _sources(tokenizer, texts, start)
    first = start_id(tokenizer)
    begin = [first] if start and first is not None else []
    return texts, [begin + ids for ids in tokenizer.encode_batch(texts)]


def _sources(tokenizer: Tokenizer, texts: Sequence[str], start: bool) -> list[list[int]]:
    """What an encoder reads: the ids of each text and the token that ends a text, as it was taught."""
    if not start:
        raise ValueError("start=False is for a model that goes on from its prompt; this one reads it as a source.")
    if tokenizer.eos_id is None:
        raise ValueError("This model's tokenizer names no token for the end of a text (eos): a source ends with it.")
    return [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]


def endings(tokenizer: Tokenizer) -> dict[str, Any]:
    """What ends a poem, and what is never drawn: all other special tokens, ids of no token, the model's spare rows."""
    return {
        "eos_ids": tokenizer.eos_ids,
        "banned": sorted({*tokenizer.special_ids.values(), *tokenizer.spare_ids}.difference(tokenizer.eos_ids)),
        "vocab_size": tokenizer.vocab_size,
    }
