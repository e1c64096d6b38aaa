"""What t5_reviews.py reports: how each training went, what the model then writes, and the reviews themselves.

Trained        a model, and how it was taught
write_report   report.md, results.json and the figures
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from review_data import Sides

from minipoet.evaluation import Confusion, GeneratedReview, RatingJudge, ReviewFigures
from minipoet.files import write_json_atomic, write_text_atomic
from minipoet.models import LanguageModel
from minipoet.models.memory import Counts
from minipoet.plots import plot_history, plot_shares
from minipoet.text import Review, count_ratings
from minipoet.tokenization import Tokenizer
from minipoet.training import History, best_epoch

SHOWN = 2  # reviews of each rating in the report


@dataclass(frozen=True)
class Trained:
    """A model, and how it was taught."""

    name: str
    model: LanguageModel
    tokenizer: Tokenizer
    history: History
    ends: tuple[int, ...]  # the last step of each epoch
    counts: Counts
    lr: float

    def measured(self, rating: int | None = None) -> tuple[float, float]:
        """The loss of held-out reviews, nats a token, before the training and at its best epoch; of one rating."""
        deciding = self.history.curve("validation")[1]
        values = deciding if rating is None else self.history.curve(f"validation {rating}")[1]
        return values[0], values[deciding.index(min(deciding))]

    @property
    def best(self) -> float:
        """The least loss of held-out reviews."""
        return self.measured()[1]

    @property
    def best_epoch(self) -> int:
        """At whose end that was, counted from 1; 0: before training."""
        return best_epoch(self.history, self.ends)


def write_report(
    folder: Path,
    sides: Sides,
    judge: RatingJudge,
    trained: Sequence[Trained],
    figures: dict[str, ReviewFigures],
    told: dict[str, Confusion],
    written: Sequence[Sequence[GeneratedReview]],
) -> None:
    """Write report.md, results.json, the course of each training and the rating control as pictures."""
    for one in trained:
        plot_history(one.history, folder / f"{one.name}.png", f"{one.name}: T5 on reviews", epochs=one.ends)
    control = {name: found.control.by_rating for name, found in figures.items()}
    control["real reviews"] = next(iter(figures.values())).judge.by_rating
    plot_shares(control, folder / "control.png", "How often the judge reads the rating that was asked for")
    confusion = judge.confusion(*_told(sides.test))
    parts = ["# Reviews on request\n", sides.report, "\n## What was learnt\n", training_table(trained),
             "\nHeld-out loss by rating, before → at the best epoch\n", ratings_table(trained),
             "\n## The judge of ratings, on reviews new to him\n", confusion.summary(),
             "\n" + confusion.table()]  # fmt: skip
    print("\n".join(parts[2:]))
    for name, found in figures.items():
        print(f"\n{name}\n{found.ratings_table()}")
        parts.append(f"\n## What `{name}` writes\n\n{found.table()}\n\n{found.ratings_table()}")
        parts.append(f"\n### Which rating makes a real review the likeliest for `{name}`\n\n{told[name].summary()}")
        parts.append("\n" + told[name].table())
        print(f"the rating that makes a real review the likeliest: {told[name].summary()}")
    parts.append("\n## Reviews\n")
    for of in written:
        for rating in sorted({review.rating for review in of}):
            for review in [r for r in of if r.rating == rating][:SHOWN]:
                text = review.text.replace("\n", "\n> ")
                parts.append(f"**{review.model}** · {review.request}\n\n> {text}\n")
    write_text_atomic(folder / "report.md", "\n".join(parts) + "\n")
    write_json_atomic(folder / "results.json", {
        "reviews": {side: count_ratings(getattr(sides, side)) for side in ("train", "validation", "judge", "test")},
        "judge": confusion.accuracy.value, "methods": {
            one.name: _figures(one, figures[one.name]) | {"told": told[one.name].accuracy._asdict()} for one in trained
        },
    })  # fmt: skip


def training_table(trained: Sequence[Trained]) -> str:
    """A row a method: what trains, how long, and what it came to."""
    lines = ["| method | parameters | share | learning rate | best epoch | loss before | at the best epoch |",
             "|---|---:|---:|---:|---:|---:|---:|"]  # fmt: skip
    for one in trained:
        before, best = one.measured()
        lines.append(f"| {one.name} | {one.counts.trainable:,} | {one.counts.share:.2f} % | {one.lr:g} | "
                     f"{one.best_epoch} of {len(one.ends)} | {before:.3f} | {best:.3f} |")  # fmt: skip
    return "\n".join(lines)


def ratings_table(trained: Sequence[Trained]) -> str:
    """A row a method, a column a rating."""
    ratings = sorted({int(name.split()[1]) for one in trained for event in one.history.events
                      for name in event if name.startswith("validation ")})  # fmt: skip
    lines = [f"| method | {' | '.join(map(str, ratings))} |", "|---|" + "---:|" * len(ratings)]
    for one in trained:
        of = [one.measured(rating) if one.history.curve(f"validation {rating}")[0] else None for rating in ratings]
        lines.append(f"| {one.name} | {' | '.join('–' if v is None else f'{v[0]:.2f} → {v[1]:.2f}' for v in of)} |")
    return "\n".join(lines)


def _told(reviews: Sequence[Review]) -> tuple[list[str], list[int]]:
    return [review.text for review in reviews], [review.rating for review in reviews]


def _figures(one: Trained, found: ReviewFigures) -> dict[str, Any]:
    before, best = one.measured()
    return {
        "trainable": one.counts.trainable, "parameters": one.counts.all, "lr": one.lr, "before": before, "best": best,
        "best_epoch": one.best_epoch, "epochs": len(one.ends), "seconds": one.history.curve("seconds")[1][-1],
        "control": found.control.accuracy._asdict(), "ceiling": found.ceiling,
        "coverage": None if found.coverage is None else found.coverage.value, "by_chance": found.by_chance,
        "copied_words": found.generated.copied.value, "words": found.generated.words.value,
    }  # fmt: skip
