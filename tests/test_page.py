"""The side-by-side page: its data, what a parser of HTML finds, its colours. In a browser: live/test_page_live.py."""

import re
from html.parser import HTMLParser

import pytest
from page_support import HOSTILE, LONG, POETS, QUATRAINS, THEMES, comparison, pair, png

from minipoet.evaluation.samples import Interval
from minipoet.plots.comparison import Comparison, Pair, Picture, Sample, cell, visible
from minipoet.plots.page import STYLE, page, write_page

VOID = {"meta", "img", "input", "wbr"}


class Page(HTMLParser):
    """Elements as (tag, attributes), each tag closed in its turn; `text[i]` is what stands in elements[i]."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()
        assert self.open == [], "left open"

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        self.text.append("")
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert tag == self.elements[self.open.pop()][0], f"</{tag}> closes another"

    def handle_data(self, data):
        for place in self.open:
            self.text[place] += data

    def all(self, tag: str, **attributes: str) -> list[str]:
        """The texts of the elements of that tag and with those attributes, class_ for class."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [
            text
            for (name, has), text in zip(self.elements, self.text, strict=True)
            if name == tag and wanted.items() <= has.items()
        ]

    def values(self, attribute: str) -> list[str]:
        return [has[attribute] for _, has in self.elements if attribute in has]


@pytest.fixture(scope="module")
def source() -> str:
    return page(comparison())


@pytest.fixture(scope="module")
def parsed(source) -> Page:
    return Page(source)


def verses(parsed: Page, side: str) -> list[str]:
    """The lines of each poem of one side."""
    found = []
    for (tag, has), text in zip(parsed.elements, parsed.text, strict=True):
        if tag == "section" and "poem" in has.get("class", ""):
            found.append((has["class"], text))
    return [text for name, text in found if name == f"poem {side}"]


def test_ids_are_unique_and_links_lead_somewhere(parsed):
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    targets = parsed.values("href")
    assert len(targets) >= len(THEMES) + 4
    assert {target[1:] for target in targets} <= set(ids)
    assert all(target.startswith("#") for target in targets)


def test_nothing_is_fetched_and_nothing_runs(source, parsed):
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base", "video", "audio"}
    assert all(value.startswith("data:image/png;base64,") for value in parsed.values("src"))
    assert not [name for _, has in parsed.elements for name in has if name.startswith("on") or name == "style"]
    style = STYLE.read_text(encoding="utf-8")
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "default-src 'none'" in parsed.values("content")[0]


def test_what_a_model_writes_is_text(parsed):
    shown = verses(parsed, "base")[0]
    for line in HOSTILE.splitlines()[:3]:
        assert line in shown
    assert "␀␇␛[31mкрасное␡� � �вспять �" in shown
    assert len(parsed.all("h1")) == 1


def test_a_lone_surrogate_can_be_written(tmp_path):
    write_page(tmp_path / "page.html", comparison(title="до \ud83d после"))
    assert "<title>до � после</title>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_titles_captions_and_words_for_pictures_are_escaped(parsed):
    assert parsed.all("title") == parsed.all("h1") == ["Три поэта <и> «base»"]
    assert THEMES[1] in parsed.all("a", lang="ru")
    assert parsed.values("alt")[0] == 'Кривая потерь "<&"'
    assert "python examples/qwen_lora_poets.py --out <folder>" in parsed.all("li")


def test_stanzas_and_lines_stay_apart(parsed):
    lines = [line for line in QUATRAINS.splitlines() if line]
    text = page(comparison(("Пушкин",), ("осень", "зима", "лето")))
    stanzas = re.findall(r"<div>(.*?)</div>", text)
    found = [re.findall(r"<p>(.*?)</p>", stanza) for stanza in stanzas]
    assert [lines[:4], lines[4:]] in [found[i : i + 2] for i in range(len(found))]


def test_leading_spaces_stay_and_other_line_ends_are_line_ends():
    assert Sample(" \n\n  раз\n").lines == ["  раз"]
    assert Sample("\r\nраз\r\n  два\u2028\tтри  \n").lines == ["раз", "  два", "\tтри"]


def test_poems_and_requests_are_marked_as_russian(parsed):
    assert len(parsed.all("div", class_="verse", lang="ru")) == 2 * len(POETS) * len(THEMES)
    assert len(parsed.all("p", class_="request", lang="ru")) == len(POETS) * len(THEMES) - 1
    assert parsed.elements[0] == ("html", {"lang": "en"})


def test_each_prompt_has_each_poet_with_base_before_adapted(parsed):
    assert parsed.all("h2")[:3] == [f"{theme} ↑" for theme in THEMES]
    assert parsed.all("h3") == [*POETS] * len(THEMES)
    assert parsed.all("h4")[:6] == ["base", "adapted"] * 3


def test_several_samples_stand_in_turns_and_one_more_of_a_side_stands_alone():
    pairs = Pair("осень", [Sample("а"), Sample("б"), Sample("в")], [Sample("г")])
    parsed = Page(page(comparison(("Пушкин",), ("осень",), poems={"Пушкин": [pairs]})))
    assert parsed.all("h4") == ["base", "adapted", "base", "base"]
    assert [text.split() for text in verses(parsed, "base")] == [["base", "а"], ["base", "б"], ["base", "в"]]


def test_an_empty_poem_is_told():
    parsed = Page(page(comparison(("Пушкин",), ("осень",), poems={"Пушкин": [pair(base=" \n\n ")]})))
    assert verses(parsed, "base")[0].split("\n")[2:4] == ["an empty text", "cut at 60 tokens · seed 3"]


@pytest.mark.parametrize(
    ("sample", "note"),
    [
        (Sample("а", "end", 3, 52), "ended after 52 tokens · seed 3"),
        (Sample("а", "end", 0, 1), "ended after 1 token · seed 0"),
        (Sample("а", "length", tokens=1200), "cut at 1,200 tokens"),
        (Sample("а", "context"), "cut: no more fits"),
        (Sample("а", "stop"), "stopped"),
        (Sample("а", seed=5), "seed 5"),
        (Sample("а"), ""),
    ],
)
def test_how_a_poem_ended_is_told(sample, note):
    assert sample.note == note


def test_no_note_leaves_no_empty_paragraph():
    text = page(comparison(("Пушкин",), ("осень",), poems={"Пушкин": [Pair("осень", Sample("а"), Sample("б"))]}))
    assert 'class="note"' not in text and 'class="request"' not in text


def test_tables_have_captions_and_heads(parsed):
    assert parsed.all("caption") == ["What the trainer reported", "Whose style is it?"]
    assert parsed.all("th", scope="row") == [*POETS] * 2
    assert parsed.all("td", **{"data-column": "trainable parameters"}) == ["14,966,784"] * 3
    assert parsed.all("td", **{"data-column": "adapted"}) == ["0.70 (0.48–0.86)"] * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.65125, "0.651"), (2.0, "2.000"), (0.0, "0.000"), (2e-5, "2e-05"), (12345.6, "12,346"), (-0.5, "-0.500"),
     (14966784, "14,966,784"), (None, "–"), (float("nan"), "nan"), ("3 of 4", "3 of 4"), ("\x1b[m", "␛[m"),
     (Interval(0.625, 0.5, 0.75), "0.62 (0.50–0.75)"), (True, "True")],
)  # fmt: skip
def test_values_are_written_so(value, text):
    assert cell(value) == text


def test_rows_may_have_different_columns():
    rows = [{"author": "Пушкин", "loss": 2.0}, {"author": "Лермонтов", "entropy": 1.5}]
    parsed = Page(page(comparison(metrics=rows, style=())))
    assert [parsed.text[i] for i, (tag, _) in enumerate(parsed.elements) if tag in ("th", "td")] == [
        "author", "loss", "entropy", "Пушкин", "2.000", "–", "Лермонтов", "–", "1.500",
    ]  # fmt: skip


def test_what_is_not_there_has_no_link_and_no_section():
    parsed = Page(page(comparison(metrics=(), style=(), figures=(), notes=())))
    assert not {"metrics", "style", "figures", "notes"} & set(parsed.values("id"))
    assert len(parsed.all("a", lang="ru")) == len(parsed.values("href")) - len(THEMES) == len(THEMES)


def test_one_poet_needs_no_choice(parsed):
    alone = Page(page(comparison(("Пушкин",))))
    assert set(alone.values("name")) == {"viewport", "color-scheme", "scheme"}
    assert set(parsed.values("name")) == {"viewport", "color-scheme", "scheme", "poet"}


def test_pictures_say_their_size_and_come_in_two_versions(parsed):
    images = [has for tag, has in parsed.elements if tag == "img"]
    assert [image["class"] for image in images] == ["light", "dark", "only"]
    assert {(image["width"], image["height"]) for image in images} == {("60", "40")}


def test_ten_poets_and_twenty_prompts_are_below_two_megabytes():
    poets, themes = [f"Поэт {i}" for i in range(10)], [f"тема {i}" for i in range(20)]
    figures = [Picture(b"\x89PNG\r\n\x1a\n" + bytes(100_000), "кривая", dark=b"\x89PNG\r\n\x1a\n" + bytes(100_000))] * 3
    text = page(comparison(poets, themes, figures=figures))
    assert len(text.encode()) < 2_000_000
    assert len(Page(text).all("h3")) == 200


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance of "#rrggbb"."""
    shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", [1, 2])
@pytest.mark.parametrize("ground", ["paper", "panel"])
@pytest.mark.parametrize("text", ["ink", "soft", "accent"])
def test_text_can_be_read_on_light_and_on_dark(text, ground, scheme):
    colors = {
        name: pair
        for name, *pair in re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", STYLE.read_text(encoding="utf-8"))
    }
    assert contrast(colors[text][scheme - 1], colors[ground][scheme - 1]) >= 4.5


def test_no_color_is_named_outside_the_table():
    rules = re.sub(r"--\w+: .*?;", "", STYLE.read_text(encoding="utf-8"))
    assert set(re.findall(r"#[0-9a-f]{3,6}\b(?=;)", rules)) == {"#fff"}  # the ground of a picture made for white


def test_page_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="is a file, not a folder"):
        write_page(tmp_path / "file" / "page.html", comparison())
    write_page(tmp_path / "new" / "page.html", comparison())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    with pytest.raises(ValueError, match=r"comparison must be a Comparison, got dict\."):
        write_page(tmp_path / "new" / "page.html", {})


def test_all_that_does_not_fit_is_told_at_once():
    with pytest.raises(ValueError) as told:
        Comparison(
            "Поэты", "poet-chat", ["Пушкин", "Пушкин", "Блок"], ["осень", "зима"],
            {"Пушкин": [pair()], "Фет": []}, metrics=[{}],
        )  # fmt: skip
    for problem in (
        "poets has 'Пушкин' more than once", "there are 2 prompts, and 1 pairs of 'Пушкин'",
        "poems has nothing of 'Блок'", "poems has 'Фет', who is not among the poets",
        "row 0 of metrics must have columns",
    ):  # fmt: skip
        assert problem in str(told.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Sample(None), "The text of a sample must be a string, got None."),
        (lambda: Sample("а", "eos"), "finish must be one of end, stop, length, context, got 'eos'"),
        (lambda: Sample("а", seed=-1), "seed must be a whole number, got -1"),
        (lambda: Pair("осень", "стих", Sample("а")), "base must be a Sample or a list of them, got 'стих'"),
        (lambda: Picture("loss.png", "кривая"), "must be the bytes of a PNG file"),
        (lambda: Picture(png(), " "), "needs words that say what it shows"),
        (lambda: comparison(prompts="осень"), "prompts must be a list of themes or requests, got one string"),
        (lambda: comparison(figures=[png()]), "figures must be a list of Pictures, but number 0 of it is bytes"),
        (lambda: Comparison("Поэты", "poet-chat", (), ("осень",), {}), "poets is empty"),
    ],
)
def test_mistakes_are_told_in_a_sentence(make, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        make()


def test_visible_text_commands_nobody():
    assert visible("а\x1b\x85б\tв\r\nг\u202eд\u2067е\udc80") == "а␛ б\tв г�д�е�"


def test_long_lines_are_not_cut(parsed):
    assert LONG in verses(parsed, "adapted")[0]
