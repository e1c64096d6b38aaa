"""The side-by-side page: one HTML file that shows, prompt by prompt, the base model's poem beside the adapted one's.

The file holds everything: its style, and the pictures as data: URIs. It asks nothing of the network (and tells the
browser to allow none), and there is no script in it: what can be chosen, a poet, light or dark, is a radio button that
the style sheet looks at. What a model wrote is text, never markup: each string passes `_text` on its way into the page.

    write_page(path, Comparison(...))       the file, whole or not at all
    page(Comparison(...)) -> str            its text

The style: page.css. The data: comparison.py. The same in a terminal: terminal.py.
"""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from minipoet.checks import as_path, expect
from minipoet.files import write_text_atomic
from minipoet.plots.comparison import CAPTIONS, Comparison, Pair, Picture, Row, Sample, cell, columns, visible

STYLE = Path(__file__).with_name("page.css")
UP = '<a class="up" href="#top" aria-label="to the top">↑</a>'
LEAD = (
    "What the base model, <b>{base}</b>, answers to each request, and beside it the same model with the poet's adapter."
)

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1 id="top">{title}</h1>
<p class="lead">{lead}</p>
{controls}
{jumps}
</header>
<main>
{main}
</main>
</body>
</html>
"""


def write_page(path: str | Path, comparison: Comparison) -> None:
    """Write the page, all or nothing. Raises ValueError for no Comparison, OSError for what cannot be written."""
    path = as_path(path, "The page")
    expect(comparison, Comparison, "comparison", "a Comparison")
    write_text_atomic(path, page(comparison))


def page(comparison: Comparison) -> str:
    """The whole page, HTML."""
    parts = [
        *(_prompt(comparison, number) for number in range(len(comparison.prompts))),
        _table(comparison.metrics, "metrics"),
        _table(comparison.style, "style"),
        _figures(comparison.figures),
        _notes(comparison.notes),
    ]
    return PAGE.format(
        title=_text(comparison.title),
        lead=LEAD.format(base=_text(comparison.base)),
        style=STYLE.read_text(encoding="utf-8") + "".join(_filters(comparison.poets)),
        controls=_controls(comparison.poets),
        jumps=_jumps(comparison),
        main="\n".join(filter(None, parts)),
    )


def _text(text: str) -> str:
    """Any string as text of the page, or as the value of an attribute in double quotes."""
    return html.escape(visible(text), quote=True)


def _filters(poets: Sequence[str]) -> Iterator[str]:
    """The rules that hide the other poets when one is chosen."""
    for number in range(1, len(poets) + 1):
        yield f":root:has(#poet-{number}:checked) article:not(.poet-{number}) {{ display: none; }}\n"


def _controls(poets: Sequence[str]) -> str:
    """Radio buttons: the poet, if there are several, and the colours."""
    groups = [_choice("Colours", "scheme", {"auto": "auto", "light": "light", "dark": "dark"})]
    if len(poets) > 1:
        names = {"all": "all", **{str(number): poet for number, poet in enumerate(poets, start=1)}}
        groups.insert(0, _choice("Poet", "poet", names))
    return f'<div class="controls">\n{"".join(groups)}</div>'


def _choice(legend: str, name: str, options: dict[str, str]) -> str:
    """One group of radio buttons, the first of them on."""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" id="{name}-{key}"{" checked" * (not place)}>'
        f"<span>{_text(label)}</span></label>\n"
        for place, (key, label) in enumerate(options.items())
    )
    return f"<fieldset><legend>{legend}</legend>\n{buttons}</fieldset>\n"


def _jumps(comparison: Comparison) -> str:
    """Links to what is on the page."""
    prompts = [
        f'<a href="#prompt-{number}" lang="ru">{_text(prompt)}</a>'
        for number, prompt in enumerate(comparison.prompts, start=1)
    ]
    others = [
        f'<a href="#{name}">{name}</a>'
        for name in ("metrics", "style", "figures", "notes")
        if getattr(comparison, name)
    ]
    return "\n".join(('<nav aria-label="On this page">', *prompts, *others, "</nav>"))


def _prompt(comparison: Comparison, number: int) -> str:
    """One prompt: an article a poet."""
    prompt = comparison.prompts[number]
    articles = (
        _article(poet, place, comparison.poems[poet][number], prompt)
        for place, poet in enumerate(comparison.poets, start=1)
    )
    return _section(f"prompt-{number + 1}", f'<h2><span lang="ru">{_text(prompt)}</span> {UP}</h2>', *articles)


def _section(name: str, *parts: str) -> str:
    return "\n".join((f'<section id="{name}">', *parts, "</section>"))


def _article(poet: str, place: int, pair: Pair, prompt: str) -> str:
    """One poet's answers to a prompt: base and adapted in turns, two in a row where there is room."""
    request = [f'<p class="request" lang="ru">{_text(pair.request)}</p>'] if pair.request != prompt else []
    poems = [
        _poem(sample, side)
        for both in pair.samples
        for side, sample in zip(("base", "adapted"), both, strict=True)
        if sample is not None
    ]
    head = [f'<article class="poet-{place}">', f'<h3 lang="ru">{_text(poet)}</h3>', *request]
    return "\n".join((*head, '<div class="pair">', *poems, "</div>", "</article>"))


def _poem(sample: Sample, side: str) -> str:
    """One poem: stanzas of lines, and how it ended."""
    stanzas = ("".join(f"<p>{_text(line)}</p>" for line in stanza) for stanza in _stanzas(sample.lines))
    verse = "".join(f"<div>{stanza}</div>" for stanza in stanzas)
    body = f'<div class="verse" lang="ru">{verse}</div>' if verse else '<p class="empty">an empty text</p>'
    note = [f'<p class="note">{sample.note}</p>'] if sample.note else []
    return "\n".join((f'<section class="poem {side}">', f"<h4>{side}</h4>", body, *note, "</section>"))


def _stanzas(lines: Iterable[str]) -> list[list[str]]:
    """The lines between empty ones."""
    return [list(stanza) for is_verse, stanza in groupby(lines, key=bool) if is_verse]


def _table(rows: Sequence[Row], name: str) -> str:
    """Rows of values under a caption, or nothing. The roles say that it is a table when it is shown as a list."""
    if not rows:
        return ""
    names = columns(rows)
    heads = (f'<th role="columnheader" scope="col">{_text(column).replace("_", "_<wbr>")}</th>' for column in names)
    return _section(
        name,
        '<table role="table">',
        f"<caption>{CAPTIONS[name]}</caption>",
        f'<thead role="rowgroup"><tr role="row">{"".join(heads)}</tr></thead>',
        '<tbody role="rowgroup">',
        *(f'<tr role="row">{_row(row, names)}</tr>' for row in rows),
        "</tbody>",
        "</table>",
    )


def _row(row: Row, names: Sequence[str]) -> str:
    """The first value is the head of the row; each other knows its column's name, for when it is shown as a list."""
    first, *others = names
    cells = (f'<td role="cell" data-column="{_text(column)}">{_text(cell(row.get(column)))}</td>' for column in others)
    return f'<th role="rowheader" scope="row">{_text(cell(row.get(first)))}</th>{"".join(cells)}'


def _figures(figures: Sequence[Picture]) -> str:
    if not figures:
        return ""
    return _section("figures", "<h2>Curves</h2>", '<div class="figures">', *map(_figure, figures), "</div>")


def _figure(picture: Picture) -> str:
    """A picture, and its twin for a dark page if there is one: the style sheet shows one of the two."""
    if picture.dark is None:
        images = _image(picture.png, picture.alt, "only")
    else:
        images = _image(picture.png, picture.alt, "light") + _image(picture.dark, picture.alt, "dark")
    caption = f"<figcaption>{_text(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{images}{caption}</figure>"


def _image(png: bytes, alt: str, kind: str) -> str:
    width, height = struct.unpack(">II", png[16:24])  # of PNG's first chunk, IHDR
    data = base64.b64encode(png).decode("ascii")
    size = f'width="{width}" height="{height}"'
    return f'<img class="{kind}" {size} alt="{_text(alt)}" src="data:image/png;base64,{data}">'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return _section("notes", "<h2>Notes</h2>", "<ul>", *(f"<li>{_text(note)}</li>" for note in notes), "</ul>")
