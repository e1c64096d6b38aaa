"""What sacrebleu answers: chrF, chrF++ and other orders, of one text, of several references, of a corpus."""

from pathlib import Path

from record_common import write_json
from record_corpus import CHRF_PAIRS
from sacrebleu.metrics import CHRF

PAIRS = [  # hypothesis, reference, another reference; with those of record_corpus one corpus
    *CHRF_PAIRS,
    ("", "", "а"),
    ("а", "а", ""),
    ("а", "", "б"),
    ("река", "", "рек"),  # letters against none: no order counts, but later the corpus
    ("рекарекарека", "рек", "рекарек"),  # orders that the reference is too short for
    ("рек", "рекарекарека", "р"),
    (" \n\t ", "вода", "\n"),
    ("вода,\u00a0вода\u2028и вода", "вода, вода и вода", "вода,водаивода"),  # white space of other kinds
    ("(вот) и всё...", "(вот и всё)", '"вот" и "всё"'),  # marks at both edges, several of them, alone
    ("? — !", "?! — … «»", "! — ?"),
    ("ё", "е\u0308", "е"),  # one letter written as two
    ("Ночь тиха. Ночь тиха.\nНочь тиха.", "Ночь тиха, и луна\nнад водой не видна.", "Тиха ночь."),
]
MANY = [  # a hypothesis and its references, as many as there are
    ("над рекой туман", ["туман над рекой", "над рекой заря", "над рекой туман стоит", "река"]),
    ("заря", ["туман", "снег", "заря горит"]),
    ("снег", ["дом", "ветер"]),  # none has anything: the first
    ("аб", ["абв", "аб", "аб"]),
    ("", ["а", ""]),
]
METRICS = {
    "chrf": {},
    "chrf++": {"word_order": 2},
    "chrf of pairs, beta 1": {"char_order": 2, "beta": 1},
    "chrf of threes and words, beta 3": {"char_order": 3, "word_order": 1, "beta": 3},
}


def record(root: Path) -> None:
    hypotheses, references, seconds = (list(column) for column in zip(*PAIRS, strict=True))
    table = {"pairs": [list(pair) for pair in PAIRS], "many": [list(pair) for pair in MANY], "metrics": {}}
    for name, options in METRICS.items():
        metric = CHRF(**options)
        table["metrics"][name] = {
            "options": options,
            "sentence": [metric.sentence_score(h, [r]).score for h, r in zip(hypotheses, references, strict=True)],
            "many": [metric.sentence_score(h, several).score for h, several in MANY],
            "signature": str(metric.get_signature()),
            "corpus": metric.corpus_score(hypotheses, [references]).score,
            "corpus_two_references": metric.corpus_score(hypotheses, [references, seconds]).score,
        }
    write_json(root / "chrf.json", table)
