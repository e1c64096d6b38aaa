"""A review from the kind of place, the rating and keywords: all parameters of a T5 against LoRA.

    python examples/t5_reviews.py                                   # embedded model, embedded reviews
    python examples/t5_reviews.py --base cointegrated/rut5-small --data geo-reviews --reviews 50000

Three trainings of the same base: `full` teaches all parameters, `lora` is LoRA of rank 4 on q and v of all attention,
`low` of rank 16 with alpha 1 on k, q and v, on reviews of at most three stars. After each epoch all are measured on
reviews that they do not learn from, rating by rating; the best epoch is kept. Then each is asked for reviews: does the
rating come out, by a judge who has never seen what they learnt from? Do the keywords? What do they copy? OUT has
report.md, figures, the adapters and the model, and samples.jsonl: 100 reviews for you, `minipoet label
OUT/samples.jsonl`. Chapters: docs/reviews.md, docs/lora-or-full.md, docs/proportions.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from review_data import EMBEDDED, Sides, ask, balanced, evenly, read
from reviews_report import Trained, write_report

import minipoet
from minipoet.checks import as_device
from minipoet.command import run
from minipoet.evaluation import (
    Confusion,
    GeneratedReview,
    RatingJudge,
    likeliest_sources,
    review_report,
    write_samples,
)
from minipoet.files import make_folder
from minipoet.generation import generate_many
from minipoet.models import LanguageModel
from minipoet.plots import plot_ratings, rating_line
from minipoet.text import Keywords, Review, parse_review_request, review_request
from minipoet.tokenization import Tokenizer
from minipoet.training import Batches, TrainSettings, best_epoch, completion_metrics, encode_pairs, epoch_ends, train
from minipoet.training.tracking import MLflow, TensorBoard

SAMPLES = 100  # reviews for a person to judge
LOW = 3  # stars at most, of the reviews that the low-ratings study learns from


@dataclass(frozen=True)
class Method:
    """How the base is taught; rank 0: all of its parameters."""

    epochs: int
    lr: float
    rank: int = 0
    alpha: float = 0.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    most_stars: int = 5


METHODS = {
    "full": Method(epochs=10, lr=5e-4),
    "lora": Method(epochs=15, lr=4e-3, rank=4, alpha=16, dropout=0.01, targets=("q", "v")),
    "low": Method(epochs=15, lr=1.6e-2, rank=16, alpha=1, dropout=0.01, targets=("k", "q", "v"), most_stars=LOW),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--base", default="reviewer-tiny", help="embedded model, folder or model on the hub (default: %(default)s)")
    add("--data", default=EMBEDDED, help='a TSKV file, or "geo-reviews" (378 MB, MIT, fetched once) (default: written '
        "for the package)")  # fmt: skip
    add("--reviews", type=int, default=None, help="how many to read (default: 3000 embedded ones; all of a file)")
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="(default: all three)")
    add("--epochs", type=int, default=None, help="instead of each method's own number")
    add("--lr", type=float, default=None, help="instead of each method's own rate")
    add("--optimizer", default="adamw", choices=("adamw", "adafactor"))
    add("--balance", type=float, default=0.5, help="of a rating with n reviews n^BALANCE in proportion are learnt: 1 "
        "as they are, 0 all ratings alike (default: %(default)s)")  # fmt: skip
    add("--length", type=int, default=192, help="tokens a row; longer reviews are cut (default: %(default)s)")
    add("--rows", type=int, default=16, help="rows a step (default: %(default)s)")
    add("--requests", type=int, default=40, help="reviews to write for each rating (default: %(default)s)")
    add("--beams", type=int, default=1, help="write by beam search instead of drawing (default: draw)")
    add("--tokens", type=int, default=160, help="longest review to write (default: %(default)s)")
    add("--track", nargs="*", default=[], choices=("tensorboard", "mlflow"), help="tell these as well (extras)")
    add("--out", type=Path, default=Path("runs/t5-reviews"), help="folder to write to (default: %(default)s)")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--resume", action="store_true", help="go on with an interrupted run in --out")
    add("--quick", action="store_true", help="an epoch of a few reviews: only to see that all of it works")
    args = parser.parse_args()
    if args.quick:
        args.reviews, args.epochs, args.requests, args.tokens = 600, 1, 2, 40
    if args.reviews is None and args.data == EMBEDDED:
        args.reviews = 3000
    return args


def batches(
    model: LanguageModel, tokenizer: Tokenizer, reviews: Sequence[Review], keywords: Keywords, args: argparse.Namespace
) -> tuple[Batches, int]:
    """The reviews with what is asked for them, and how many had to be cut."""
    pairs = encode_pairs(model, tokenizer, *ask(reviews, keywords), args.length)
    return Batches(pairs.targets, args.length, args.rows, args.seed, sources=pairs.sources), pairs.cut


def teach(name: str, sides: Sides, keywords: Keywords, args: argparse.Namespace) -> Trained:
    """Train the base by one method; gives the model with its best weights, and how the training went."""
    method = METHODS[name]
    method = replace(method, epochs=args.epochs or method.epochs, lr=args.lr or method.lr)
    full = not method.rank
    model, tokenizer = minipoet.load(args.base, dtype=torch.float32 if full else None, device=args.device)
    if not full:
        minipoet.add_lora(model, method.rank, method.alpha, method.targets, method.dropout, seed=args.seed)
    chosen = {
        side: [r for r in getattr(sides, side) if r.rating <= method.most_stars] for side in ("train", "validation")
    }
    learnt, cut = batches(model, tokenizer, balanced(chosen["train"], args.balance, args.seed), keywords, args)
    measured = {
        rating: batches(model, tokenizer, [r for r in chosen["validation"] if r.rating == rating], keywords, args)[0]
        for rating in sorted({review.rating for review in chosen["validation"]})
    }

    def validate() -> dict[str, float]:
        found = {rating: completion_metrics(model, of, "auto") for rating, of in measured.items()}
        tokens = sum(each.tokens for each in found.values())
        whole = sum(each.loss * each.tokens for each in found.values()) / tokens
        return {"validation": whole} | {f"validation {rating}": each.loss for rating, each in found.items()}

    ends = epoch_ends(learnt, method.epochs)
    settings = TrainSettings(
        steps=ends[-1], lr=method.lr, warmup=min(50, ends[0]), optimizer=args.optimizer, evaluate_every=ends,
        seed=args.seed,
    )  # fmt: skip
    counts = minipoet.count_parameters(model)
    print(f"\n{name}: {counts.trainable:,} of {counts.all:,} parameters ({counts.share:.2f} %), "
          f"{len(chosen['train']):,} reviews ({cut} cut), {method.epochs} epochs of {ends[0]} steps, "
          f"learning rate {method.lr:g}")  # fmt: skip
    folder = args.out / name
    makers = {
        "tensorboard": lambda: TensorBoard(folder / "tensorboard"),
        "mlflow": lambda: MLflow("t5-reviews", run_name=name),
    }
    track = [makers[which]() for which in args.track]
    history = train(model, learnt, settings, folder, validate, resume=args.resume, track=track)
    if full:
        minipoet.save(model, tokenizer, folder / "model")
    else:
        minipoet.save_adapter(model, folder)
    print(f"the best epoch is {best_epoch(history, ends)} of {method.epochs}")
    return Trained(name, model, tokenizer, history, ends, counts, method.lr)


def write(trained: Trained, requests: Sequence[str], args: argparse.Namespace) -> list[GeneratedReview]:
    """What the model writes when it is asked."""
    options = {"temperature": 0.8, "top_p": 0.9} if args.beams == 1 else {"temperature": 0, "beams": args.beams}
    written = generate_many(
        trained.model, trained.tokenizer, requests, max_new_tokens=args.tokens, seed=args.seed, **options
    )
    return [
        GeneratedReview(of[0].text, *parse_review_request(request)[1:], request, trained.name)
        for request, of in zip(requests, written, strict=True)
    ]


def tell(trained: Trained, reviews: Sequence[Review], args: argparse.Namespace) -> Confusion:
    """Which rating, in the request for each real review, makes it the likeliest for the model; else the same request.

    The keywords are left out of it: they would tell the rating by themselves.
    """
    ratings = list(range(1, METHODS[trained.name].most_stars + 1))
    choices = [[review_request(review.rubrics, rating) for rating in ratings] for review in reviews]
    texts = [review.text for review in reviews]
    likeliest = likeliest_sources(trained.model, trained.tokenizer, texts, choices, args.length, args.rows)
    return Confusion.of([review.rating for review in reviews], [ratings[which] for which in likeliest])


def main() -> None:
    args = arguments()
    started = time.perf_counter()
    args.device = as_device(args.device)
    make_folder(args.out)
    sides = read(args.data, args.reviews, args.seed)
    print(sides.report)
    ratings = [review.rating for review in sides.train]
    print(f"to learn from: {rating_line(ratings)}")
    plot_ratings(ratings, args.out / "ratings.png", "Reviews to learn from")

    keywords = Keywords.of(review.text for review in sides.train)
    judge = RatingJudge.fit([r.text for r in sides.judge], [r.rating for r in sides.judge])
    tested = evenly(sides.test, args.requests)
    asked, _ = ask(tested, keywords)
    trained, figures, told, written = [], {}, {}, []
    for name in args.methods:
        trained.append(teach(name, sides, keywords, args))
        stars = METHODS[name].most_stars
        theirs = write(trained[-1], [request for request in asked if parse_review_request(request)[1] <= stars], args)
        told[name] = tell(trained[-1], [review for review in tested if review.rating <= stars], args)
        figures[name] = review_report(theirs, judge, sides.test, [review.text for review in sides.train])
        written.append(theirs)
    best = written[min(range(len(trained)), key=lambda i: (METHODS[trained[i].name].most_stars < 5, trained[i].best))]
    chosen = write_samples(args.out / "samples.jsonl", best, min(SAMPLES, len(best)), args.seed)
    write_report(args.out, sides, judge, trained, figures, told, written)
    print(f"\n{args.out}: report.md, figures, samples.jsonl ({len(chosen)} reviews of {chosen[0].model}: "
          f"`minipoet label {args.out / 'samples.jsonl'}`); {time.perf_counter() - started:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    run(main)
