"""Cleaning: what the web and old files add to a text is taken away; the words and the lines stay.

A model learns every character it is shown, so an invisible one costs twice: it wastes a place in the vocabulary, and it
makes two equal words differ ("слово" and "сло\u00adво"). Each function below removes one kind of noise and says why;
`clean_text` applies them all and is idempotent: `clean_text(clean_text(text)) == clean_text(text)`, so cleaned corpora
may be read again.

    clean_text        a whole text: all of the steps below, in their order
    clean_title       the same, on one line
    decode_markup     HTML tags, entities and comments
    drop_footnotes    [1], [*], <sup>2</sup>
    unify_characters  Unicode form, line ends, spaces, invisible characters
    drop_accents      stress marks over Cyrillic vowels
    mend_lookalikes   Latin letters inside Cyrillic words
    unify_punctuation dashes and dots
    tidy_lines        spaces at both ends of a line, runs of blank lines

Chapter: docs/text.md. Unicode normal forms: Unicode Standard Annex 15.
"""

import html
import re
import unicodedata

from minipoet.checks import expect

_COMMENT = re.compile(r"<!--.*?-->|<(script|style|sup)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_NEW_LINE_TAG = re.compile(r"[ \t]*<(?:br|/div|/tr|/li|/h[1-6]|hr)\b[^<>]*>[ \t]*\n?", re.IGNORECASE)
_NEW_STANZA_TAG = re.compile(r"[ \t]*</?p\b[^<>]*>[ \t]*\n?", re.IGNORECASE)
_OTHER_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_FOOTNOTE = re.compile(r"[ \t]*\[(?:\d{1,3}|\*{1,3})\]")

_LINE_END = re.compile("\r\n|[\r\v\f\x1c-\x1e\x85\u2028]")
_SPACE = re.compile("[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_COMPOSED_GRAVE = str.maketrans("ѐѝЀЍ", "еиЕИ")  # the two Cyrillic letters that NFC composes with a grave accent
_ACCENT = re.compile("[\u0300\u0301\u0341](?<=[аеёиоуыэюяѣіѵАЕЁИОУЫЭЮЯѢІѴ].)")

_LATIN, _CYRILLIC = "aáàceéèëoóòpxyýABCEËHKMOPTX", "ааасеееёооорхууАВСЕЁНКМОРТХ"
_LOOKALIKES = str.maketrans(_LATIN, _CYRILLIC)
_MIXED_WORD = re.compile(  # a whole word of Cyrillic letters and Latin ones of that shape, at least one of them Latin
    rf"(?<![^\W\d_])(?=[а-яёА-ЯЁ]*[{_LATIN}])[{_LATIN}а-яёА-ЯЁ]+(?![^\W\d_])"
)
_HAS_CYRILLIC = re.compile("[а-яёА-ЯЁ]")

_DASH = re.compile(r"(?:^|(?<= ))(?:-{1,3}|[–—−])(?= |$)|-{2,}|―", re.MULTILINE)
_DOTS = re.compile(r"…|\.(?:[ \t]*\.){3,}|\.[ \t]+\.[ \t]+\.")


def decode_markup(text: str) -> str:
    """HTML to plain text: `<br>` ends a line, `<p>` a stanza, other tags go, `&nbsp;`, `&mdash;` … become characters.

    Only what begins with a Latin letter is a tag: an editor's <слово> and a lone "<" stay as they are.
    """
    text = _COMMENT.sub("", text)
    text = _NEW_STANZA_TAG.sub("\n\n", _NEW_LINE_TAG.sub("\n", text))
    return html.unescape(_OTHER_TAG.sub("", text))


def drop_footnotes(text: str) -> str:
    """Footnote marks go: a bracketed number of up to three digits or stars. A bracketed word, or a year, stays."""
    return _FOOTNOTE.sub("", text)


def unify_characters(text: str) -> str:
    """NFC; one kind of line end, one kind of space; what is never seen (soft hyphens, zero-width, BOM, controls) goes.

    NFC joins what some files write as two characters ("и" + breve → "й"), so that equal words are equal strings.
    """
    text = _LINE_END.sub("\n", text).replace("\u2029", "\n\n")
    return unicodedata.normalize("NFC", _UNSEEN.sub("", _SPACE.sub(" ", text)))


def drop_accents(text: str) -> str:
    """Stress marks over Cyrillic vowels go: schoolbooks print them, and a stressed word would be another word."""
    return _ACCENT.sub("", text.translate(_COMPOSED_GRAVE))


def mend_lookalikes(text: str) -> str:
    """Latin letters inside a Cyrillic word become the Cyrillic ones they look like; words wholly Latin stay.

    Scanning leaves them behind, the eye cannot see them, and a tokenizer sees a word that it has never met.
    """

    def mend(match: re.Match[str]) -> str:
        word = match.group()
        return word.translate(_LOOKALIKES) if _HAS_CYRILLIC.search(word) else word

    return _MIXED_WORD.sub(mend, text)


def unify_punctuation(text: str) -> str:
    """A dash between words is an em dash, a row of dots is three: else one sign takes several places in a vocabulary.

    Hyphens inside words and ranges of numbers (1830–1831) stay.
    """
    return _DASH.sub("—", _DOTS.sub("...", text))


def tidy_lines(text: str) -> str:
    """Single spaces, none at the ends of a line; at most one blank line in a row, none at the ends of the text."""
    lines = (line.strip(" ") for line in re.sub(" {2,}", " ", text).split("\n"))
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


_STEPS = (
    decode_markup,
    drop_footnotes,
    unify_characters,
    drop_accents,
    mend_lookalikes,
    unify_punctuation,
    tidy_lines,
)


def clean_text(text: str) -> str:
    """A text with all of the noise above removed; line breaks and stanza breaks are kept. Idempotent.

    One step may uncover work for another (`&amp;nbsp;` holds an entity, which holds a space), so the steps are repeated
    until nothing changes; nearly every text needs two rounds, the second of which finds nothing to do.
    """
    expect(text, str, "The text", "a string")
    while True:
        cleaned = text
        for step in _STEPS:
            cleaned = step(cleaned)
        if cleaned == text:
            return cleaned
        text = cleaned


def clean_title(title: str) -> str:
    """`clean_text`, and on one line: a title is printed beside others and compared with them."""
    return " ".join(clean_text(title).split())
