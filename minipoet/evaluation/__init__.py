"""Evaluation: how to know if it got better.

likelihood     loss, perplexity, bits per character; of all texts, or of each
fair           bits per character across letters, words and subwords
copying        the longest run of words shared with the training verse
copied         the same where the training verse is large
frequencies    how often each word, letter or token stands in a corpus
spelling       what an unknown word costs: its letters
repetition     how much of a text is repetition: n-grams, loops, lines
chrf           how many runs of letters a text shares with the text that it should have been
form           has a text the form of verse: lines, syllables, stanzas
distinct       the share of different n-grams in a text
likeliest      which of several requests makes a text the likeliest: a writer as a judge
continuations  what a model makes of the first lines of held-out poems: all its figures at once
authors        whose verse is it: a judge by the runs of letters
style          how often the poet who was asked for comes out; dividing verse for a judge
ratings        which rating a review has: a judge by its words
confusion      which rating was taken for which: accuracy, recall, and what guessing would have
reviews        reviews written on request: rating control, keywords, copies, each beside that of real ones
labels         a person's yes or no, text by text, on disk at once
shares         what yes and no come to: intervals, and the difference of two shares
attention      which share of the attention goes to a prefix
samples        how far a figure is to be trusted: intervals, and comparing two models
"""

from minipoet.evaluation.attention import PrefixMass, prefix_mass
from minipoet.evaluation.authors import AuthorJudge, pieces
from minipoet.evaluation.chrf import ChrF, chrf, chrf_rows, sentence_chrf
from minipoet.evaluation.confusion import Confusion
from minipoet.evaluation.continuations import BETTER, Opening, first_lines, openings, report
from minipoet.evaluation.copied import copied_words
from minipoet.evaluation.copying import CopyIndex, Copying, SharedRun
from minipoet.evaluation.distinct import distinct
from minipoet.evaluation.fair import fair_bits, unknown_cost
from minipoet.evaluation.form import Form, verse_form
from minipoet.evaluation.frequencies import Frequencies, counts_by_size, frequencies
from minipoet.evaluation.labels import (
    Labels,
    Sample,
    Samples,
    read_labels,
    read_samples,
    write_samples,
)
from minipoet.evaluation.likeliest import likeliest_sources
from minipoet.evaluation.likelihood import Likelihood, likelihood, texts_likelihood
from minipoet.evaluation.ratings import RatingJudge
from minipoet.evaluation.repetition import Repeats, Repetition, repetition
from minipoet.evaluation.reviews import GeneratedReview, ReviewFigures, review_report
from minipoet.evaluation.samples import Difference, Interval, Sampled, compare, mean_of, ratio_of, wilson
from minipoet.evaluation.shares import LabelSummary, Share, share_difference, summarize
from minipoet.evaluation.spelling import Spelling, unseen_letters
from minipoet.evaluation.style import JudgeSplit, Quatrains, StyleReport, how_often, quatrains_asked, split_for_judge

__all__ = [
    "BETTER",
    "AuthorJudge",
    "ChrF",
    "Confusion",
    "CopyIndex",
    "Copying",
    "Difference",
    "Form",
    "Frequencies",
    "GeneratedReview",
    "Interval",
    "JudgeSplit",
    "LabelSummary",
    "Labels",
    "Likelihood",
    "Opening",
    "PrefixMass",
    "Quatrains",
    "RatingJudge",
    "Repeats",
    "Repetition",
    "ReviewFigures",
    "Sample",
    "Sampled",
    "Samples",
    "Share",
    "SharedRun",
    "Spelling",
    "StyleReport",
    "chrf",
    "chrf_rows",
    "compare",
    "copied_words",
    "counts_by_size",
    "distinct",
    "fair_bits",
    "first_lines",
    "frequencies",
    "how_often",
    "likeliest_sources",
    "likelihood",
    "mean_of",
    "openings",
    "pieces",
    "prefix_mass",
    "quatrains_asked",
    "ratio_of",
    "read_labels",
    "read_samples",
    "repetition",
    "report",
    "review_report",
    "sentence_chrf",
    "share_difference",
    "split_for_judge",
    "summarize",
    "texts_likelihood",
    "unknown_cost",
    "unseen_letters",
    "verse_form",
    "wilson",
    "write_samples",
]
