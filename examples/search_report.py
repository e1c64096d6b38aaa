"""What a search of architectures came to: tables and plots of the trials that search_architectures.py noted.

Chapter: docs/search.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from minipoet.plots import plot_points, plot_trials
from minipoet.training.search import Trial, explained, rank_correlation, ranked
from minipoet.training.space import Candidate

SHOWN = ("layer", "n_layer", "n_hidden", "n_embd", "window", "dropout", "optimizer", "lr", "rows")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys in Markdown."""
    cells = [[f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()] for row in rows]
    lines = [list(rows[0]), ["---:"] * len(rows[0]), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def told_briefly(candidate: Candidate) -> str:
    """A candidate in a legend."""
    return (f"{candidate['number']}: {candidate['n_layer']} × {candidate['n_hidden']}, {candidate['optimizer']} "
            f"{candidate['lr']:g}, {candidate['rows']} rows of {candidate['window']}")  # fmt: skip


def by_layer(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials that came to their end by type, the best first."""
    layers = dict.fromkeys(trial.candidate["layer"] for trial in trials)
    found = {layer: ranked(trial for trial in trials if trial.candidate["layer"] == layer) for layer in layers}
    return {layer: trials for layer, trials in found.items() if trials}


# The search


def told_search(trials: Sequence[Trial], counted: float) -> str:
    """The ranking, what each setting alone explains of it, and what went wrong. counted: the bits of an n-gram."""
    order = ranked(trials)
    text = "# The search\n\n" + table([row(place, trial) for place, trial in enumerate(order, start=1)])
    text += f"\n\nAn n-gram that counts the same verse: {counted:.3f} bits per character."
    if len(order) > 2 and order[0].score < order[-1].score:
        text += f"\n\nOf the spread of the places, each setting alone:\n\n{table(settings_alone(order))}"
    bad = [f"- candidate {trial.candidate['number']} ({', '.join(f'{n} {trial.candidate[n]}' for n in SHOWN)}) has "
           f"{trial.status}: {trial.reason}" for trial in trials if trial.status != "done"]  # fmt: skip
    return text + ("\n\nWithout a result:\n\n" + "\n".join(bad) if bad else "") + "\n"


def row(place: int, trial: Trial) -> dict[str, Any]:
    """A line of the table."""
    found, settings = trial.found, {name: trial.candidate[name] for name in SHOWN}
    return {
        "place": place, "candidate": trial.candidate["number"], **settings,
        "parameters": found["parameters"], "steps": found["steps"],
        "best epoch": f"{found['best_step'] / found['epoch']:.0f}", "perplexity": f"{found['perplexity']:.2f}",
        "bits per character": f"{found['score']:.3f}", "seconds": f"{found['seconds']:.0f}",
    }  # fmt: skip


def settings_alone(order: Sequence[Trial]) -> list[dict[str, str]]:
    """How much of the spread each setting explains, and how much as many groups would if they were drawn by lot."""
    scores, rows = [trial.score for trial in order], []
    for name in SHOWN:
        groups = thirds(order) if name == "lr" else [trial.candidate[name] for trial in order]
        if len(set(groups)) > 1:
            rows.append((explained(groups, scores), (len(set(groups)) - 1) / (len(order) - 1), name))
    return [{"setting": name, "explains, %": f"{100 * share:.0f}", "chance, %": f"{100 * chance:.0f}"}
            for share, chance, name in sorted(rows, reverse=True)]  # fmt: skip


def thirds(trials: Sequence[Trial]) -> list[int]:
    """Is the learning rate among the lower (0), middle or upper (2) third of those tried with its optimiser?"""
    rates: dict[str, list[float]] = {}
    for trial in trials:
        rates.setdefault(trial.candidate["optimizer"], []).append(trial.candidate["lr"])
    ordered = {name: sorted(values) for name, values in rates.items()}
    places = [(ordered[one.candidate["optimizer"]], one.candidate["lr"]) for one in trials]
    return [3 * values.index(rate) // len(values) for values, rate in places]


def draw_search(trials: Sequence[Trial], unit: str, middles: Mapping[str, float], folder: Path) -> list[str]:
    """The curves of each type, and all by their learning rates, as multiples of `middles` of the optimisers.

    Gives the names of the files.
    """
    layers = by_layer(trials)
    for layer, mine in layers.items():
        curves = {told_briefly(trial.candidate): points(trial) for trial in mine}
        title, y = f"{layer}: {len(mine)} candidates", f"validation perplexity, {unit}"
        plot_trials(curves, folder / f"curves-{layer}.png", title, "epoch", y)
    rates = {layer: [(trial.candidate["lr"] / middles[trial.candidate["optimizer"]], trial.score) for trial in mine]
             for layer, mine in layers.items()}  # fmt: skip
    x = "learning rate, as a multiple of the middle of its optimiser's range"
    plot_points(rates, folder / "rates.png", "All candidates", x, "validation, bits per character", log="x")
    return [*(f"curves-{layer}.png" for layer in layers), "rates.png"]


def points(trial: Trial) -> list[tuple[float, float]]:
    """(epoch, validation perplexity)."""
    steps, values = trial.found["curve"]["step"], trial.found["curve"]["perplexity"]
    return [(step / trial.found["epoch"], value) for step, value in zip(steps, values, strict=True)]


# What it was worth


def told_confirmed(
    trials: Sequence[Trial], confirmed: Mapping[str, Sequence[Trial]], counted: float, path: Path
) -> tuple[str, dict[str, Any]]:
    """Does the ranking hold, and how much do the seed and the learning rate move? In words, and in figures.

    confirmed: trials on "all" the verse, with other "seeds", at other "rates". counted: the bits of an n-gram on all
    the verse. The picture shows the first of these trials.
    """
    small = {trial.candidate["number"]: trial for trial in trials}
    pairs = [(small[big.candidate["number"]], big) for big in ranked(confirmed["all"])]
    parts, figures = ["# Confirmed"], dict[str, Any]()
    if len(pairs) > 1:
        before, after, test = ([get(*pair) for pair in pairs] for get in (
            lambda one, _: one.score, lambda _, big: big.score, lambda _, big: big.found["test"]))  # fmt: skip
        figures = {"rho_validation": rank_correlation(before, after), "rho_test": rank_correlation(before, test)}
        lines = [{
            "candidate": one.candidate["number"], "layer": one.candidate["layer"],
            "parameters": big.found["parameters"], "on the part: place": sorted(before).index(one.score) + 1,
            "bits": f"{one.score:.3f}", "on all: place": place, "bits ": f"{big.score:.3f}",
            "test: bits": f"{big.found['test']:.3f}",
        } for place, (one, big) in enumerate(pairs, start=1)]  # fmt: skip
        parts += [f"On all the verse, {pairs[0][1].candidate['times']:g} times as many steps:", table(lines),
                  f"Rank correlation of the search with the validation on all the verse: "
                  f"{figures['rho_validation']:.2f}; with the test: {figures['rho_test']:.2f}. "
                  f"An n-gram that counts all the verse: {counted:.3f} bits per character."]  # fmt: skip
        places = {layer: [(small[big.candidate["number"]].score, big.score) for big in mine]
                  for layer, mine in by_layer(confirmed["all"]).items()}  # fmt: skip
        plot_points(places, path, "Does the ranking hold?", "on little data: bits per character", "on all the verse")
    figures["best_of_types"] = [
        seeds_and_rates(best[0], *(by_layer(confirmed[kind]).get(layer, []) for kind in ("seeds", "rates")))
        for layer, best in by_layer(trials).items()
    ]
    parts += ["The best of each type on the part, with other seeds, and at other learning rates:",
              table(figures["best_of_types"])]  # fmt: skip
    return "\n\n".join(parts) + "\n", figures


def seeds_and_rates(best: Trial, seeds: Sequence[Trial], rates: Sequence[Trial]) -> dict[str, Any]:
    """A line of the table: what the seed does to the best of a type, and what the learning rate does."""
    scores = [best.score, *(trial.score for trial in seeds)]
    at = sorted((trial.candidate["lr"], trial.score) for trial in [best, *rates])
    return {
        "layer": best.candidate["layer"], "candidate": best.candidate["number"],
        "bits by seed": ", ".join(f"{score:.3f}" for score in sorted(scores)), "mean": f"{fmean(scores):.3f}",
        "range": f"{max(scores) - min(scores):.3f}",
        "bits by learning rate": ", ".join(f"{rate:g}: {score:.3f}" for rate, score in at),
        "range ": f"{max(score for _, score in at) - min(score for _, score in at):.3f}",
    }  # fmt: skip
