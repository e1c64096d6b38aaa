"""Texts: poems, prose and reviews read from files, cleaned, freed of copies, and divided for training and validation.

    poems.py      Poem, read_poems           a folder, a text file, JSONL or parquet -> a list of poems
    stihi.py      read_stihi, ReadReport     a large, unclean collection (stihi_ru), as a stream
    filters.py    VerseFilter                what is no Russian verse is left out, and counted by reason
    records.py    Record, read_records       one JSON object a line, of poems or prose, read as a stream
    rows.py       read_rows                  how files of records are packed: gzip, zstd, parquet
    clean.py      clean_text, clean_title    what the web and old files add is taken away
    dedup.py      drop_duplicates            one poem printed twice is kept once
    works.py      work_of                    which long poem a chapter belongs to
    split.py      split_by_work              nothing of the validation side is in the training side
                  split_by_poem, check_apart the same for a hundred thousand poems that stand alone
    quotations.py Quotations                 lines of one corpus that another quotes are taken out
    prose.py      read_prose, hold_out       prose: whole works, and the end of each held out
    themes.py     Themes                     what a poem is about, in a word or two
    stems.py                                 words without their endings, words that say nothing
    requests.py   request, genitive          the sentence that asks for a poem
    likeness.py   Likeness                   how alike a request and texts are: tf–idf over stems
    few_shot.py   Shots, PlainForm, ChatForm examples before a request, as many whole ones as fit
    excerpts.py   excerpts, quatrains        a long poem divided where a reader pauses
    reviews.py    Review, read_reviews       reviews of places, by name or path, as a stream; ReviewReport
                  review_request             the line that asks for a review
    tskv.py       read_fields                lines of key=value, with a TAB between
    keywords.py   Keywords, covers           the words that stand out in a review
    review_sets.py split_reviews, resample   sides without leaks, each rating alike; what to do about rare ratings
    written.py    WrittenReview, read_written the reviews written for the package, with their alternatives
    variations.py vary, split_written        ten thousand reviews out of a few hundred written ones
    corpora.py    read_corpus, corpus_sha256 corpora by name: "embedded…", "pushkin"; read_prose_corpus
    sources.py                               the readers of the files that "pushkin" is downloaded from
    download.py   Pin, fetch                 a fixed address, a size and a checksum
    errors.py     CorpusError                a ValueError: what was expected, what came, what to do

The room uses the standard library, NumPy and a progress bar, and what unpacks zstd and parquet where it is installed.
It knows nothing of tokens and models.
"""

from minipoet.text.clean import clean_text, clean_title
from minipoet.text.corpora import corpus_sha256, read_corpus, read_prose_corpus
from minipoet.text.dedup import Duplicate, drop_duplicates
from minipoet.text.download import Pin, fetch
from minipoet.text.errors import CorpusError
from minipoet.text.excerpts import quatrains
from minipoet.text.few_shot import ChatForm, PlainForm, Prompt, Shot, Shots
from minipoet.text.filters import VerseFilter
from minipoet.text.keywords import Keywords, covers
from minipoet.text.likeness import Likeness
from minipoet.text.poems import Poem, parse_poems, read_poems
from minipoet.text.prose import hold_out, parse_prose, read_prose
from minipoet.text.quotations import Quotations
from minipoet.text.records import Record, read_records
from minipoet.text.requests import LAB_THEMES, genitive, parse_poet, request
from minipoet.text.review_sets import class_weights, resample, split_reviews
from minipoet.text.reviews import (
    Review,
    ReviewReport,
    count_ratings,
    parse_review_request,
    read_reviews,
    review_request,
    stream_reviews,
)
from minipoet.text.split import Split, check_apart, split_by_poem, split_by_work
from minipoet.text.stihi import ReadReport, read_stihi, stream_stihi
from minipoet.text.themes import Themes
from minipoet.text.variations import how_many, split_written, vary
from minipoet.text.works import work_of
from minipoet.text.written import WrittenReview, read_written

__all__ = [
    "LAB_THEMES",
    "ChatForm",
    "CorpusError",
    "Duplicate",
    "Keywords",
    "Likeness",
    "Pin",
    "PlainForm",
    "Poem",
    "Prompt",
    "Quotations",
    "ReadReport",
    "Record",
    "Review",
    "ReviewReport",
    "Shot",
    "Shots",
    "Split",
    "Themes",
    "VerseFilter",
    "WrittenReview",
    "check_apart",
    "class_weights",
    "clean_text",
    "clean_title",
    "corpus_sha256",
    "count_ratings",
    "covers",
    "drop_duplicates",
    "fetch",
    "genitive",
    "hold_out",
    "how_many",
    "parse_poems",
    "parse_poet",
    "parse_prose",
    "parse_review_request",
    "quatrains",
    "read_corpus",
    "read_poems",
    "read_prose",
    "read_prose_corpus",
    "read_records",
    "read_reviews",
    "read_stihi",
    "read_written",
    "request",
    "resample",
    "review_request",
    "split_by_poem",
    "split_by_work",
    "split_reviews",
    "split_written",
    "stream_reviews",
    "stream_stihi",
    "vary",
    "work_of",
]
