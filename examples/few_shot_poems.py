"""Do examples in the prompt help? No training: the model only reads some poems before it is to write its own.

    python examples/few_shot_poems.py                                  the embedded models and verse, a minute or two
    python examples/few_shot_poems.py --corpus poems.jsonl --author Пушкин --held-out 100
    python examples/few_shot_poems.py --model MODEL --adapter FOLDER   a model of one's own, with and without an adapter

Of each poem the first lines are taken; some works are held out. For each held-out poem the model gets its theme as the
request, behind no example, one or five: any ones, or those most like the request. A base model reads «Тема: осень» and
a poem, again and again; a chat model reads turns of a conversation. Then two things are measured. How many bits the
poet's own lines cost behind that prompt, beside what they cost without examples: a figure that no luck of sampling
blurs. And what the model writes, cut to as many lines: chrF with the poet's, whether the theme is in it, by how many
syllables its lines differ from the poet's in length, whether it ended of itself, and the longest run of words that it
shares with its examples. In --out: report.md, poems.md, results.json. Chapter: docs/few-shot.md
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from statistics import median
from typing import Any

import torch
from few_shot_report import Row, Way, as_numbers, poems_page, table

import minipoet
from minipoet.command import run
from minipoet.evaluation import CopyIndex, chrf_rows, first_lines, likelihood, mean_of, ratio_of, verse_form
from minipoet.files import make_folder, write_json_atomic, write_text_atomic
from minipoet.generation import Generated, SamplingSettings, chat_many, generate_many
from minipoet.models import LanguageModel
from minipoet.text import (
    Poem,
    Themes,
    corpus_sha256,
    covers,
    drop_duplicates,
    parse_poet,
    quatrains,
    read_corpus,
    request,
    split_by_work,
)
from minipoet.text.few_shot import ChatForm, PlainForm, Prompt, Shot, Shots
from minipoet.text.stems import WORD
from minipoet.tokenization import Tokenizer, chat_template, start_id

TOP_P = 0.95  # of all sampling
MODELS = ("poet-tiny", "poet-chat")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        default=list(MODELS),
        help="embedded, a folder, or an id on the hub (default: %(default)s)",
    )
    add("--adapter", help="a folder with an adapter of the one --model, which is then measured without it and with it")
    add("--corpus", default="embedded", help='"embedded", "pushkin", a folder of .txt, a .txt, a .jsonl')
    add("--author", help="only this author's poems of a .jsonl corpus")
    add("--poet", help="who is named in a chat model's request, NAME or NAME/GENITIVE (default: nobody)")
    add("--lines", type=int, default=4, help="lines of a poem that are read, and asked for (default: %(default)s)")
    add("--shots", type=int, nargs="+", default=[1, 5], help="examples, besides none (default: %(default)s)")
    add("--held-out", type=int, default=100, help="measure on so many poems at most (default: %(default)s)")
    add("--validation", type=float, default=0.2, help="share that is held out (default: %(default)s)")
    add("--tokens", type=int, default=64, help="new tokens, at most; longer poems are left out (default: %(default)s)")
    add("--form", default="auto", choices=("auto", "plain", "chat"), help="auto: chat if the model has learnt to talk")
    add("--temperature", type=float, default=0.8)
    add("--seed", type=int, default=0, help="of the choice of examples, and of the poems")
    add("--out", type=Path, default=Path("runs/few_shot"), help="folder for the results (default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--quick", action="store_true", help="a few poems: only to see that all of it works")
    args = parser.parse_args()
    least = {"lines": 1, "held_out": 2, "tokens": 1, "seed": 0}
    wrong = [f"--{name.replace('_', '-')} must be at least {n}, got {getattr(args, name)}"
             for name, n in least.items() if getattr(args, name) < n]  # fmt: skip
    wrong += [f"--shots are 1 or more (no example is measured in any case), got {n}" for n in args.shots if n < 1]
    if args.adapter and len(args.model) != 1:
        wrong.append(f"--adapter belongs to one model: name it by --model, which is {' '.join(args.model)} now")
    if wrong:
        raise ValueError("; ".join(wrong) + ".")
    args.shots = sorted(set(args.shots))
    if args.quick:
        args.held_out, args.shots, args.tokens = min(args.held_out, 4), args.shots[:1], min(args.tokens, 48)
    SamplingSettings(args.tokens, args.temperature, TOP_P, seed=args.seed)  # raises for what makes no sense: now
    return args


def read(args: argparse.Namespace) -> tuple[list[Poem], list[Poem]]:
    """The first lines of poems: examples to choose from, and others to measure on, in an order that nobody chose."""
    poems, _ = drop_duplicates(read_corpus(args.corpus, args.author))
    split = split_by_work(poems, args.validation, args.seed)

    def beginnings(own: list[Poem]) -> list[Poem]:
        return [replace(poem, text=first_lines(poem.text, args.lines, whole=True).strip()) for poem in own]

    aside = sorted(beginnings(split.validation), key=lambda poem: hashlib.sha256(poem.text.encode()).digest())
    return beginnings(split.train), aside


@dataclass(frozen=True)
class Subject:
    """A model that is measured, and the form in which it is asked."""

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    form: PlainForm | ChatForm

    def ids(self, given: Any) -> list[int]:
        """What the model reads of a prompt."""
        if isinstance(self.form, ChatForm):
            return chat_template(self.tokenizer).encode(self.tokenizer, given, generation_prompt=True)
        first = start_id(self.tokenizer)
        return [*([] if first is None else [first]), *self.tokenizer.encode(given)]

    def count(self, prompts: Sequence[Any]) -> list[int]:
        """How many tokens prompts have."""
        return [len(self.ids(given)) for given in prompts]

    def write(self, prompts: Sequence[Prompt], args: argparse.Namespace) -> list[Generated]:
        """One poem behind each prompt, until the form says that it ends."""
        settings = {"max_new_tokens": args.tokens, "temperature": args.temperature, "top_p": TOP_P, "seed": args.seed}
        write = chat_many if isinstance(self.form, ChatForm) else generate_many
        found = write(self.model, self.tokenizer, [p.given for p in prompts], stop=self.form.stops, **settings)
        return [poems[0] for poems in found]

    def bits(self, prompts: Sequence[list[int]], poems: Sequence[str]) -> Any:
        """Bits per character of each poem behind its prompt's ids, as a Sampled. The end of a poem is not counted."""
        found = [
            likelihood(self.model, [ids + poem], len(text), self.model.context, prompts=[len(ids)])
            for ids, poem, text in zip(prompts, self.tokenizer.encode_batch(poems), poems, strict=True)
        ]
        return ratio_of([one.nll / log(2) for one in found], [len(text) for text in poems])


def request_for(poem: Poem, themes: Themes, form: PlainForm | ChatForm, genitive: str | None) -> str:
    """The theme alone for a plain form; the sentence that asks for the poem in a chat."""
    theme = themes.theme(poem)
    return theme if isinstance(form, PlainForm) else request(quatrains(poem.text), theme, genitive)


def measure(
    subject: Subject, pool: Shots, asked: list[str], poems: list[Poem], themes: Themes, args: argparse.Namespace
) -> list[Row]:
    """The rows of one model: without examples, and with each number of them, any ones and those most alike."""
    ways = [Way(0), *(Way(shots, by) for shots in args.shots for by in ("chance", "likeness"))]
    truths = [poem.text for poem in poems]
    rows = []
    if isinstance(subject.form, PlainForm) and (first := start_id(subject.tokenizer)) is not None:
        rows.append(Row(Way(None), [], [], {"bits": subject.bits([[first]] * len(poems), truths)}))
    for way in ways:
        prompts = [pool.prompt(one, way.shots or 0, subject.model.context, args.tokens, way.by) for one in asked]
        found = subject.write(prompts, args)
        written = [subject.form.parse(one.continuation) for one in found]
        ended = [one.finish in ("end", "stop") for one in found]
        as_long = [first_lines(text, args.lines, whole) for text, whole in zip(written, ended, strict=True)]
        figures = {
            "bits": subject.bits([subject.ids(prompt.given) for prompt in prompts], truths),
            "chrF": chrf_rows(as_long, truths),
            "theme": mean_of(
                [share_heard(themes.theme(poem), text) for poem, text in zip(poems, as_long, strict=True)]
            ),
            "syllables off": mean_of(list(map(syllables_off, as_long, truths))),
            "ended": mean_of(ended),
        }
        if way.shots:
            figures["copied"] = mean_of(longest_runs(prompts, as_long))
            figures["poet's"] = mean_of(longest_runs(prompts, truths))
        rows.append(Row(way, prompts, written, figures))
    return rows


def syllables_off(text: str, truth: str) -> float:
    """By how many syllables a line in the middle of one text is longer or shorter than one of the other."""
    lines = [verse_form(one, cut=True).syllables or (0,) for one in (text, truth + "\n")]
    return abs(median(lines[0]) - median(lines[1]))


def share_heard(theme: str, text: str) -> float:
    """The share of a theme's words that are in a text, in whatever form."""
    words = WORD.findall(theme)
    return sum(covers(word, text) for word in words) / max(1, len(words))


def longest_runs(prompts: Sequence[Prompt], texts: Sequence[str]) -> list[int]:
    """Of each text the words in the longest run that stands in an example of its prompt."""
    return [
        CopyIndex(shot.text for shot in prompt.shots).longest_run(text).words if prompt.shots else 0
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def subjects(args: argparse.Namespace) -> Iterator[Subject]:
    """The models, one after another; with --adapter the same one twice, the second time with it."""
    for name in args.model:
        model, tokenizer = minipoet.load(name, device=args.device)
        talks = args.form == "chat" or (args.form == "auto" and has_chat(tokenizer))
        form = ChatForm() if talks else PlainForm()
        yield Subject(name, model, tokenizer, form)
        if args.adapter:
            minipoet.load_adapter(model, args.adapter)
            yield Subject(f"{name} with {args.adapter}", model, tokenizer, form)


def has_chat(tokenizer: Tokenizer) -> bool:
    """Has its model learnt to talk?"""
    try:
        chat_template(tokenizer)
    except ValueError:
        return False
    return True


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    examples, aside = read(args)
    themes = Themes.of(examples)
    genitive = parse_poet(args.poet)[1] if args.poet else None
    make_folder(args.out)
    report, pages, numbers = [f"# Examples in the prompt: {Path(args.corpus).name}\n"], [], {}
    for subject in subjects(args):
        lengths = map(len, subject.tokenizer.encode_batch([poem.text for poem in aside]))
        fit = [poem for poem, length in zip(aside, lengths, strict=True) if length <= args.tokens]
        poems = fit[: args.held_out]
        if len(poems) < 2:
            raise ValueError(
                f"{len(poems)} of {len(aside)} held-out poems have at most {args.tokens} tokens in their first "
                f"{args.lines} lines, and two or more are needed: give more --tokens, fewer --lines, more --validation."
            )
        asked = [request_for(poem, themes, subject.form, genitive) for poem in poems]
        shots = [Shot(request_for(poem, themes, subject.form, genitive), poem.text) for poem in examples]
        pool = Shots(shots, subject.form, subject.count, [poem.text for poem in poems], args.seed)
        rows = measure(subject, pool, asked, poems, themes, args)
        unlike = sum(not any(pool.likeness(one)) for one in asked)
        head = (f"## {subject.name}\n\n{len(poems)} held-out poems ({len(aside) - len(fit)} longer than {args.tokens} "
                f"tokens left out), {len(pool.shots)} examples to choose from ({pool.leaks} left out as copies); for "
                f"{unlike} requests none is alike, so that chance chooses; context {subject.model.context}, of which "
                f"{args.tokens} tokens are kept for the poem\n")  # fmt: skip
        report += [head, table(rows), ""]
        print(f"\n{head}\n{table(rows)}")
        pages += [f"## {subject.name}\n", poems_page(asked, [poem.text for poem in poems], rows)]
        numbers[subject.name] = as_numbers(rows)
    write_text_atomic(args.out / "report.md", "\n".join(report))
    write_text_atomic(args.out / "poems.md", "# What was written\n\n" + "\n".join(pages))
    write_json_atomic(args.out / "results.json", {
        "settings": {name: value for name, value in vars(args).items() if name != "out"},
        "corpus_sha256": corpus_sha256(examples + aside), "models": numbers,
        "seconds": round(time.perf_counter() - started, 1),
    })  # fmt: skip
    print(f"\n{args.out}: report.md, poems.md, results.json; {time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    run(main)
