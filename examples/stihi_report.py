"""What the prefix laboratory (prefix_stihi.py) measures of each of its models, and how it tells it.

    Exam        the held-out poems, their openings and the seeds: the same for each model
    Answers     what one model gave, kept in a file
    Record      the models so far: report.md, samples.md, and numbers for results.json

Chapter: docs/measuring.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minipoet.evaluation import (
    BETTER,
    Likelihood,
    Opening,
    Sampled,
    compare,
    first_lines,
    mean_of,
    openings,
    report,
    texts_likelihood,
)
from minipoet.files import read_json, write_json_atomic, write_text_atomic
from minipoet.generation import generate_many
from minipoet.models import LanguageModel
from minipoet.text import Poem, corpus_sha256
from minipoet.tokenization import Tokenizer, encode_texts
from minipoet.training import History

LINES = 6  # of a continuation that are compared; with the two of the opening two quatrains
SHOWN = 5  # held-out openings in the samples
Figures = Mapping[str, Sampled]
FIGURES = {**BETTER, "letters": 0}  # of a continuation: chrF asks for recall first, so what is long gains
HEADS = {"chrF": "chrF/100", "perplexity": "perplexity", "bits_per_character": "bits/char", "verse": "verse form",
         "distinct_2": "distinct-2", "copied_words": "copied words"}  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """The likelihood of each held-out poem; what was written after each opening, and after each prompt."""

    likelihoods: list[Likelihood]
    written: list[str]
    prompted: list[str]

    def write(self, file: Path, key: Any) -> None:
        """Keep them in a file, with what they depend on."""
        write_json_atomic(file, {"key": key, **asdict(self)}, indent=None)

    @classmethod
    def read(cls, file: Path, key: Any) -> Answers | None:
        """Those of a file; None if there is none, or of something else."""
        kept = read_json(file) if file.exists() else {}
        if kept.get("key") != key:
            return None
        return cls([Likelihood(**one) for one in kept["likelihoods"]], kept["written"], kept["prompted"])


@dataclass(frozen=True)
class Exam:
    """What each model is measured on. length: tokens read at a time. sampling: settings of `generate_many`."""

    poems: Sequence[Poem]
    prompts: Sequence[str]
    length: int
    sampling: Mapping[str, Any]
    batch: int = 32  # continuations at a time

    @cached_property
    def openings(self) -> list[Opening]:
        """The poems that are long enough, each as its first two lines and what follows."""
        return openings([poem.text for poem in self.poems], length=LINES)

    def key(self) -> dict[str, Any]:
        """What the answers depend on besides the model."""
        return {"held_out": corpus_sha256(self.poems), "prompts": list(self.prompts), "length": self.length,
                **self.sampling}  # fmt: skip

    def longest_prompt(self, tokenizer: Tokenizer) -> int:
        """Tokens of the longest of all that is continued, the beginning of the text included."""
        texts = [*(pair.prompt for pair in self.openings), *self.prompts]
        return 1 + max(map(len, tokenizer.encode_batch(texts)))

    def sit(self, model: LanguageModel, tokenizer: Tokenizer) -> Answers:
        """What a model makes of it."""
        texts = [poem.text for poem in self.poems]
        likelihoods = texts_likelihood(
            model, encode_texts(tokenizer, texts), list(map(len, texts)), self.length, breaks=tokenizer.encode("\n")
        )
        prompts = [*(pair.prompt for pair in self.openings), *self.prompts]
        rows = [poems[0] for poems in generate_many(model, tokenizer, prompts, batch_size=self.batch, **self.sampling)]
        written = [first_lines(row.continuation, LINES, row.finish == "end") for row in rows[: len(self.openings)]]
        return Answers(likelihoods, written, [row.continuation for row in rows[len(self.openings) :]])

    def figures(self, answers: Answers, learnt: Sequence[str]) -> dict[str, Sampled]:
        """The figures of what it made of it; `learnt` are the poems that it may have copied from."""
        letters = mean_of([sum(map(str.isalpha, text)) for text in answers.written])
        return report(answers.written, self.openings, learnt, answers.likelihoods) | {"letters": letters}

    def of_the_poets(self, answers: Answers, learnt: Sequence[str]) -> dict[str, Sampled]:
        """The figures that are of a text alone, of the true continuations; `answers` are any model's."""
        found = self.figures(replace(answers, written=[pair.truth for pair in self.openings]), learnt)
        return {key: one for key, one in found.items() if not key.startswith(("chrF", "perplexity", "bits"))}


class Record:
    """The models that were measured so far, and the files in `out` that tell of them."""

    def __init__(self, exam: Exam, learnt: Sequence[str], out: Path, title: str):
        self.exam, self.learnt, self.out, self.title = exam, learnt, out, title
        self.answers: dict[str, Answers] = {}
        self.figures: dict[str, Figures] = {}
        self.poets: Figures = {}

    def measure(self, name: str, folder: str, model: LanguageModel, tokenizer: Tokenizer, key: Any) -> None:
        """Measure a model, unless its folder has the answers to this key: the run was cut off later. Tell of all."""
        file = self.out / folder / "answers.json"
        found = Answers.read(file, key)
        if found is None:
            print(f"\nmeasuring {name}: {len(self.exam.poems):,} poems, {len(self.exam.openings):,} continuations")
            found = self.exam.sit(model, tokenizer)
            found.write(file, key)
        self.answers[name], self.figures[name] = found, self.exam.figures(found, self.learnt)
        self.poets = self.poets or self.exam.of_the_poets(found, self.learnt)
        write_text_atomic(self.out / "report.md", told(self.title, self.exam, self.figures, self.poets))
        write_text_atomic(self.out / "samples.md", samples(self.exam, self.answers))
        print("\n" + small_table(self.figures, markdown=False))

    def as_numbers(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All figures with their intervals, and differences from the first model, for results.json."""
        (base, first), *others = self.figures.items()
        found = {base: {key: one.interval()._asdict() for key, one in first.items()}}
        for name, figures in others:
            found[name] = {
                key: one.interval()._asdict() | {"from_base": compare(one, first[key])._asdict()}
                for key, one in figures.items()
            }
        return found


def shown(name: str, value: float) -> str:
    """A figure as it is printed: chrF as the laboratory has it, from 0 to 1."""
    if name.startswith("chrF"):
        return f"{value / 100:.4f}"
    return f"{100 * value:.1f} %" if name in ("verse", "repeated_lines") else f"{value:.3f}"


def table(rows: Sequence[Sequence[str]], markdown: bool = True) -> str:
    """Rows of cells, the first the heads: in Markdown, or in columns for a screen."""
    if markdown:
        lines = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
             for row in rows]  # fmt: skip
    return "\n".join("  ".join(line) for line in lines)


def small_table(models: Mapping[str, Figures], markdown: bool = True) -> str:
    """The laboratory's table, a row a model."""
    rows = [[name, *(shown(key, found[key].value) for key in HEADS)] for name, found in models.items()]
    return table([["model", *HEADS.values()], *rows], markdown)


def told(title: str, exam: Exam, models: Mapping[str, Figures], poets: Figures) -> str:
    """report.md: the laboratory's table, and one of all figures: intervals, and p of the difference to the first."""
    base, *others = models
    rows = [["figure", *models, *(f"p, {name}" for name in others), "the poets"]]
    for key, better in FIGURES.items():
        cells = [with_interval(key, found[key]) for found in models.values()]
        ps = [f"{compare(models[name][key], models[base][key]).p:.3f}" for name in others]
        of_poets = with_interval(key, poets[key]) if key in poets else ""
        rows.append([key.replace("_", " ") + {1: " ↑", -1: " ↓", 0: ""}[better], *cells, *ps, of_poets])
    return (
        f"# {title}\n\n{small_table(models)}\n\n{table(rows)}\n\n"
        f"Perplexity and bits per character of {len(exam.poems)} held-out poems; the other figures of what was written "
        f"after the first two lines of {len(exam.openings)} of them, {LINES} lines at most, like the poets' own. "
        f"In brackets the 95 % interval over the poems (bootstrap); p against {base} (approximate randomisation).\n"
    )


def with_interval(key: str, figure: Sampled) -> str:
    """A figure and its bounds."""
    value, low, high = (shown(key, number) for number in figure.interval())
    return f"{value} [{low}, {high}]"


def samples(exam: Exam, models: Mapping[str, Answers]) -> str:
    """Markdown: the prompts and some openings, and beside one another what each model wrote after them."""
    parts = ["# The same lines, the same seeds\n"]
    for number, prompt in enumerate(exam.prompts):
        parts += side_by_side(prompt, {name: found.prompted[number] for name, found in models.items()})
    parts.append(f"# Held-out poems, the next {LINES} lines\n")
    for number, (prompt, truth) in enumerate(exam.openings[:SHOWN]):
        parts += side_by_side(
            prompt, {name: found.written[number] for name, found in models.items()} | {"the poet": truth}
        )
    return "\n".join(parts)


def side_by_side(prompt: str, texts: Mapping[str, str]) -> list[str]:
    """A prompt and a table of one row: a text a column."""
    cells = ["<br>".join(line.replace("|", "\\|") for line in text.strip("\n").split("\n")) for text in texts.values()]
    quoted = [f"> {line}  " for line in prompt.strip("\n").split("\n")]
    return [*quoted, "", "|" + "|".join(texts) + "|", "|---" * len(texts) + "|", "|" + "|".join(cells) + "|", ""]


def joined(histories: Sequence[History]) -> History:
    """One history of several stages, the steps counted on."""
    whole, before = History(), 0
    for history in histories:
        for event in history.events:
            whole.add(**event | {"step": event["step"] + before})
        before = whole.events[-1]["step"]
    return whole


def best_step(history: History) -> int:
    """The step whose weights were kept."""
    steps, values = history.curve("validation")
    return steps[values.index(min(values))]
