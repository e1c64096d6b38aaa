"""Reviews of places: read as a stream from a file of half a million lines, cleaned, freed of copies, and asked for.

Written for the public geo-reviews of Yandex (github.com/yandex/geo-reviews-dataset-2023, MIT, © 2023 YANDEX LLC):
500,000 anonymised reviews in TSKV, 378 MB. It does not come with the package: it is downloaded where it is asked for,
or given by path. What comes with the package is a few hundred reviews written for it, of places that there are not,
and a grammar that varies them (`minipoet.text.variations`).

    read_reviews     "embedded-reviews", "geo-reviews" or a path -> reviews, and a `ReviewReport`
    stream_reviews   the reviews of a file one by one
    Review           a text, its rating and what the place is
    clean_review     spaces, control characters and rows of !!!!! tidied; emoji and line breaks stay
    review_request   what a model is asked: "категория: Кафе; рейтинг: 5; слова: кофе, десерт"
    count_ratings    how many there are of each rating

Chapter: docs/reviews.md.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from tqdm import tqdm

from minipoet.checks import as_path, each, expect, is_whole, shown
from minipoet.text.dedup import word_key
from minipoet.text.download import OpenUrl, Pin, fetch
from minipoet.text.errors import CorpusError
from minipoet.text.rows import Broken
from minipoet.text.tskv import read_fields

RATINGS = (1, 2, 3, 4, 5)
EMBEDDED = 10_000  # reviews that "embedded-reviews" has
SHOWN = 5  # lines named for each kind of mistake

_GEO = ("yandex/geo-reviews-dataset-2023", "60ca4b75b47c57eb2c91fbdcfc6a4a6f8bc0937f", "geo-reviews-dataset-2023.tskv")
GEO_REVIEWS = Pin(
    "https://media.githubusercontent.com/media/" + quote("/".join(_GEO)),  # raw.… has a pointer of Git LFS there
    "3aa1a838276e23217b14d904f47ab20c753751a48eef8e046d6d671a65098109",
    378_730_064,
    "MIT, © 2023 YANDEX LLC",
    "bring the file with --data FILE",
)

_UNSEEN = re.compile(  # controls and marks of direction, but no joiner (U+200D) and no variation selector: emoji
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)
_LINE_END = re.compile("[\r\v\f\x85\u2028\u2029]\n?")
_SPACE = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_SPACES = re.compile(" {2,}")
_ROW = re.compile(r"([!?.,)(:;-])\1{3,}")
_BLANK = re.compile("\n{3,}")
_REQUEST = re.compile(r"категория: (?P<rubrics>.+); рейтинг: (?P<rating>[^;]*?)(?:; слова: (?P<keywords>[^;]+))?")


@dataclass(frozen=True, slots=True)
class Review:
    """A review: its text, a rating of 1 to 5, the rubrics of the place (Кафе, …), its name and address, if known."""

    text: str
    rating: int
    rubrics: tuple[str, ...]
    name: str = ""
    address: str = ""


@dataclass
class ReviewReport:
    """What became of the lines: `read` = `kept` + `unrated` + `copies` + `variants` + all of `broken`.

    unrated: rating 0, which means none; copies: texts that were there before, letter for letter, and variants: but for
    case, ё and punctuation; broken: how many lines by what is wrong, and `places` the first lines of each.
    """

    source: str = ""
    read: int = 0
    kept: int = 0
    unrated: int = 0
    copies: int = 0
    variants: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[int]] = field(default_factory=dict)

    def __str__(self) -> str:
        """A line, and one for each kind of mistake."""
        told = (
            f"{self.source}: {self.read:,} read, {self.kept:,} kept; left out {self.unrated:,} without a rating, "
            f"{self.copies:,} copies, {self.variants:,} copies but for case and punctuation, "
            f"{self.broken.total():,} broken"
        )
        mistakes = [
            f"  - {count:,} × {why} (line {', '.join(map(str, self.places[why]))}{', …' * (count > SHOWN)})"
            for why, count in self.broken.most_common()
        ]
        return "\n".join([f"{told}{':' if mistakes else '.'}", *mistakes])


def read_reviews(
    name_or_path: str | Path,
    limit: int | None = None,
    cache: str | Path | None = None,
    open_url: OpenUrl | None = None,
) -> tuple[list[Review], ReviewReport]:
    """Reviews by name or path, and what became of the lines.

    Args:
        name_or_path: "embedded-reviews", written for the package and varied; "geo-reviews", the public file, which is
            downloaded once (378 MB; `cache` and `open_url` are those of `fetch`); else a TSKV file of that form, as it
            is or packed with gzip or zstd.
        limit: stop after so many; the rest of the file is not read.

    Raises:
        CorpusError: no such name or path, a file that cannot be read, or one without a single usable review.
    """
    if limit is not None and not is_whole(limit, 1):
        raise CorpusError(f"limit must be a whole number of reviews, at least 1, or None for all, got {shown(limit)}")
    if name_or_path == "embedded-reviews":
        return _embedded(limit)
    path = (
        fetch(GEO_REVIEWS, cache, open_url) if name_or_path == "geo-reviews" else as_path(name_or_path, "The reviews")
    )
    if not path.exists():
        raise CorpusError(
            f"{path}: neither a file nor the name of a collection; the names are embedded-reviews and geo-reviews"
        )
    report = ReviewReport()
    with tqdm(stream_reviews(path, report), total=limit, desc="reviews", unit="", disable=None) as stream:
        reviews = list(islice(stream, limit))
    if not reviews:
        raise CorpusError(
            f"no review was found. {report}\nExpected a line for each, of fields `key=value` with a TAB between: "
            "rating=5.⇥rubrics=Кафе⇥text=…"
        )
    return reviews, report


def _embedded(limit: int | None) -> tuple[list[Review], ReviewReport]:
    from minipoet.text.variations import read_written, vary  # here: what it makes are Reviews

    reviews = vary(read_written(), EMBEDDED)[:limit]
    return reviews, ReviewReport("embedded-reviews", read=len(reviews), kept=len(reviews))


def stream_reviews(path: str | Path, report: ReviewReport | None = None) -> Iterator[Review]:
    """The reviews of a TSKV file, cleaned, one by one; of copies the first. `report` is kept up to date.

    In memory there is one line, and a number for each text that was seen.
    """
    path = as_path(path, "The reviews")
    expect(report, (ReviewReport, type(None)), "report", "a ReviewReport")
    report = ReviewReport() if report is None else report
    report.source = str(path)
    texts, keys = set[int](), set[int]()
    for number, fields in read_fields(path, GEO_REVIEWS.url):
        report.read += 1
        review = fields if isinstance(fields, Broken) else _review(fields)
        if isinstance(review, Broken):
            report.broken[review] += 1
            places = report.places.setdefault(review, [])
            if len(places) < SHOWN:
                places.append(number)
        elif not review.rating:
            report.unrated += 1
        elif (seen := hash(review.text)) in texts:
            report.copies += 1
        elif (key := hash(word_key(review.text))) in keys:
            report.variants += 1
        else:
            texts.add(seen)
            keys.add(key)
            report.kept += 1
            yield review


def _review(fields: dict[str, str]) -> Review | Broken:
    """The review of a line, or what is wrong with it."""
    missing = [name for name in ("rating", "rubrics", "text") if name not in fields]
    if missing:
        return Broken(f"no {', no '.join(missing)}")
    rating = _rating(fields["rating"])
    if rating is None:
        return Broken("a rating that is no whole number from 0 to 5")
    rubrics = _rubrics(fields["rubrics"])
    if not rubrics:
        return Broken("empty rubrics")
    text = clean_review(fields["text"].replace("\\n", "\n"))
    if not any(map(str.isalnum, text)):
        return Broken("an empty text" if not text else "a text without a letter")
    return Review(text, rating, rubrics, _one_line(fields.get("name_ru", "")), _one_line(fields.get("address", "")))


@lru_cache(maxsize=1000)
def _rating(value: str) -> int | None:
    """ "3." -> 3, or None for what is no rating."""
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if number in (0, *RATINGS) else None


@lru_cache(maxsize=100_000)
def _rubrics(value: str) -> tuple[str, ...]:
    """ "Кафе;Бар, паб" -> its names; one object for all places of the same kind."""
    return tuple(dict.fromkeys(name for one in value.split(";") if (name := _one_line(one))))


def _one_line(value: str) -> str:
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", value)).split())


def clean_review(text: str) -> str:
    """A text with one kind of line end and of space, no unseen characters, and rows of signs cut to three.

    NFC, so that equal words are equal strings. Case, emoji, line breaks and mistakes stay: they are what people write.
    Idempotent.
    """
    text = _UNSEEN.sub("", _LINE_END.sub("\n", text))
    text = _ROW.sub(
        r"\1\1\1", _SPACES.sub(" ", unicodedata.normalize("NFC", _SPACE.sub(" ", text))).replace("…", "...")
    )
    return _BLANK.sub("\n\n", text.replace(" \n", "\n").replace("\n ", "\n")).strip()


def review_request(rubrics: Iterable[str], rating: int, keywords: Iterable[str] = ()) -> str:
    """What a model is asked for a review: "категория: Кафе; Бар, паб; рейтинг: 5; слова: кофе, десерт".

    Without keywords the last part is left out.

    Raises:
        ValueError: no rubric, an empty one, or one with «;» or a line break in it; a rating outside 1 to 5; a keyword
            with a comma, «;» or line break.
    """
    rubrics = [rubric.strip() for rubric in each(rubrics, str, "The rubrics", "names of kinds of places")]
    keywords = [keyword.strip() for keyword in each(keywords, str, "The keywords", "words")]
    wrong = []
    if not rubrics or not all(rubric and not re.search("[;\n]", rubric) for rubric in rubrics):
        wrong.append(f"the rubrics must be one name or more, each without «;», got {rubrics or 'none'}")
    if not is_whole(rating) or rating not in RATINGS:
        wrong.append(f"the rating must be a whole number from 1 to 5, got {shown(rating)}")
    if not all(keyword and not re.search("[,;\n]", keyword) for keyword in keywords):
        wrong.append(f"a keyword must be a word or some, without «,» and «;», got {keywords}")
    if wrong:
        raise ValueError(f"Cannot ask for a review: {'; '.join(wrong)}.")
    words = f"; слова: {', '.join(keywords)}" if keywords else ""
    return f"категория: {'; '.join(rubrics)}; рейтинг: {rating}{words}"


def parse_review_request(request: str) -> tuple[tuple[str, ...], int, tuple[str, ...]]:
    """The rubrics, the rating and the keywords of a request.

    Raises:
        ValueError: what `review_request` never gives.
    """
    expect(request, str, "The request", "a string")
    match = _REQUEST.fullmatch(request)
    if not match:
        raise ValueError(f"Expected «категория: Кафе; рейтинг: 5; слова: кофе, десерт», got {shown(request)}.")
    rating, rubrics, keywords = match["rating"], match["rubrics"].split("; "), (match["keywords"] or "").split(", ")
    keywords = [] if keywords == [""] else keywords
    written = review_request(rubrics, int(rating) if rating.isdecimal() else rating, keywords)  # type: ignore[arg-type]
    if written != request:
        raise ValueError(f"Expected a request like «{written}», got {shown(request)}.")
    return tuple(rubrics), int(rating), tuple(keywords)


def count_ratings(reviews: Iterable[Review]) -> dict[int, int]:
    """How many reviews there are of each rating from 1 to 5."""
    counts = Counter(review.rating for review in each(reviews, Review, "The reviews", "Review(text, rating, rubrics)"))
    return {rating: counts[rating] for rating in RATINGS}
