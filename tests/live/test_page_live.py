"""The side-by-side page in a real browser: Playwright drives its own Chromium, or one that the system has.

    pip install playwright && playwright install chromium

Scripts are switched off: whatever can be chosen on the page must work without them.
"""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("playwright")

from page_support import POETS, THEMES, comparison
from playwright.sync_api import Error, sync_playwright

from minipoet.plots.page import write_page

SYSTEM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
PAPER = {"light": "rgb(251, 250, 246)", "dark": "rgb(25, 24, 23)"}


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        paths = [None, *filter(None, map(shutil.which, SYSTEM))]
        for path in paths:
            try:
                found = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
            except Error:
                continue
            yield found
            found.close()
            return
        pytest.skip("Playwright found no Chromium: playwright install chromium")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("page")
    poets, themes = [f"Длиннофамильный {i}" for i in range(10)], [f"тема номер {i}" for i in range(20)]
    request = "Напиши стихотворение из 4 четверостиший на тему 'дружба' в стиле поэта Лермонтова"
    pages = {
        "usual": comparison(),
        "one poet": comparison(("Пушкин",)),
        "large": comparison(poets, themes),
        "bare": comparison(("А" * 200,), (request,), title="Ы" * 300, metrics=(), style=(), figures=(), notes=()),
    }
    for name, content in pages.items():
        write_page(folder / f"{name}.html", content)
    return {name: folder / f"{name}.html" for name in pages}


@pytest.fixture
def opened(browser, files):
    """opened(name, width, scheme) -> the page; at the end: no message on the console, no request but for the file."""
    contexts, told, asked = [], [], []

    def open_page(name: str = "usual", width: int = 1280, scheme: str = "light"):
        size = {"width": width, "height": 800}
        context = browser.new_context(viewport=size, color_scheme=scheme, java_script_enabled=False)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(files[name].as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert told == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert len([url for url in asked if url.startswith("file")]) == len(contexts)


@pytest.mark.parametrize("name", ["usual", "one poet", "large", "bare"])
def test_nothing_scrolls_sideways(opened, name):
    page = opened(name)
    inside = "e => e.getBoundingClientRect().right <= innerWidth && e.scrollWidth <= e.clientWidth + 1"
    for width in (320, 360, 703, 704, 768, 769, 900, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), width
        parts = ".poem, .verse, h1, h2, h3, .request, td, nav, fieldset"
        assert page.eval_on_selector_all(parts, f"es => es.every({inside})"), width


@pytest.mark.parametrize(("width", "columns"), [(360, 1), (703, 1), (704, 2), (1280, 2)])
def test_base_and_adapted_stand_side_by_side_where_there_is_room(opened, width, columns):
    base, adapted = (
        opened(width=width).locator(f"article .{side}").nth(1).bounding_box() for side in ("base", "adapted")
    )
    assert (base["x"] + base["width"] < adapted["x"]) == (base["y"] == adapted["y"]) == (columns == 2)


def test_what_goes_on_from_the_line_above_hangs(opened):
    lefts = opened(width=360).evaluate("""() => {
        const range = document.createRange(), lines = new Map();
        range.selectNodeContents(document.querySelector(".adapted .verse p"));
        for (const {top, left} of range.getClientRects()) lines.set(top, Math.min(left, lines.get(top) ?? left));
        return [...lines.values()];
    }""")
    assert len(lefts) > 3 and min(lefts[1:]) == max(lefts[1:]) > lefts[0] + 10


@pytest.mark.parametrize("chosen", ["auto", "light", "dark"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_those_of_the_system_unless_chosen(opened, scheme, chosen):
    page = opened(scheme=scheme)
    page.locator("label", has=page.locator(f"#scheme-{chosen}")).click()
    shown = scheme if chosen == "auto" else chosen
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == PAPER[shown]
    assert [page.locator(f"img.{kind}").is_visible() for kind in ("light", "dark", "only")] == [
        shown == "light", shown == "dark", True,
    ]  # fmt: skip
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert [page.locator(f"img.{kind}").is_visible() for kind in ("light", "dark")] == [True, False]
    assert not page.locator("nav").is_visible() and not page.locator(".controls").is_visible()


def test_one_poet_can_be_chosen_and_all_again(opened):
    page = opened()
    visible = "hs => hs.filter(h => h.offsetParent).map(h => h.textContent)"
    assert page.eval_on_selector_all("h3", visible) == [*POETS] * len(THEMES)
    page.get_by_label(POETS[1], exact=True).check()
    assert page.eval_on_selector_all("h3", visible) == [POETS[1]] * len(THEMES)
    assert page.locator(".poem:visible").count() == 2 * len(THEMES)
    page.get_by_label("all", exact=True).focus()
    page.keyboard.press("ArrowLeft")  # round to the last, by keyboard
    assert page.eval_on_selector_all("h3", visible) == [POETS[-1]] * len(THEMES)
    page.get_by_label("all", exact=True).check()
    assert len(page.eval_on_selector_all("h3", visible)) == len(POETS) * len(THEMES)


def test_links_lead_to_their_places(opened):
    page = opened()
    for place in ("prompt-2", "notes", "top"):
        page.locator(f"a[href='#{place}']").first.click()
        box = page.locator(f"#{place}").bounding_box()
        assert -1 <= box["y"] <= 800


def test_what_a_model_wrote_is_read_as_text(opened):
    page = opened()
    assert page.title() == "Три поэта <и> «base»"
    assert page.locator("h1").count() == 1 and page.locator("script").count() == 0
    assert (
        '<script>document.title = "украдено"</script> & "кавычки" \'и\' &amp; ещё'
        in page.locator(".verse").first.inner_text()
    )


@pytest.mark.parametrize("width", [360, 1280])
def test_tables_are_tables_for_who_does_not_see_them(opened, width):
    page = opened(width=width)
    table = page.get_by_role("table", name="What the trainer reported")
    assert table.get_by_role("row").count() == 1 + len(POETS)
    assert table.get_by_role("columnheader").count() == 9
    assert table.get_by_role("cell", name="14,966,784").count() == len(POETS)
