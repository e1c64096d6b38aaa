"""Corpora by name and their fingerprint."""

import hashlib
import io
from pathlib import Path

import pytest

from minipoet.text import corpora
from minipoet.text.corpora import corpus_sha256, pushkin_pins, read_corpus
from minipoet.text.download import Pin
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem

SNOW, RAIN = Poem("Снег идёт.", "Снег", "Снегов"), Poem("Дождь идёт.", "Дождь", "Снегов")


def test_path_is_read_as_poems(tmp_path: Path) -> None:
    (tmp_path / "Снег.txt").write_text("Снег идёт.\n", encoding="utf-8")
    assert [poem.title for poem in read_corpus(tmp_path)] == ["Снег"]
    assert [poem.title for poem in read_corpus(str(tmp_path))] == ["Снег"]


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(CorpusError, match="the names are embedded, embedded-lermontov, embedded-esenin, pushkin"):
        read_corpus("puskhin")


def test_embedded_corpus_is_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assets").mkdir()
    monkeypatch.setattr(corpora.resources, "files", lambda package: tmp_path)
    with pytest.raises(CorpusError, match="pushkin_manner.txt is missing"):
        read_corpus("embedded")
    (tmp_path / corpora.EMBEDDED["embedded"]).write_text(
        "# Снег\nСнег идёт.\n***\n# Дождь\nДождь идёт.\n", encoding="utf-8"
    )
    assert [poem.title for poem in read_corpus("embedded")] == ["Снег", "Дождь"]


def test_pushkin_is_made_of_the_pinned_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "": "Стихотворения 1901 г\n\n\n\nВечер\n\n\t\tБыл вечер тих.\n",
        "Лесная быль": "Лесная быль\n\nГлава первая\n\nШумит мой лес.\n\nГлава вторая\n\nОн отшумел.\n",
    }
    pins = {}
    for work, text in files.items():
        data = text.encode()
        pins[work] = Pin(f"https://example.org/{work}.txt", hashlib.sha256(data).hexdigest(), len(data), "test")
    by_url = {pins[work].url: files[work].encode() for work in files}
    monkeypatch.setattr(corpora, "pushkin_pins", lambda: pins)
    poems = read_corpus("pushkin", None, tmp_path, lambda url: io.BytesIO(by_url[url]))
    assert [(poem.title, poem.work) for poem in poems] == [
        ("Вечер", ""),
        ("Лесная быль. Глава первая", "Лесная быль"),
        ("Лесная быль. Глава вторая", "Лесная быль"),
    ]
    assert {poem.author for poem in poems} == {corpora.PUSHKIN}


def test_pins_are_well_formed_and_free_of_dramas() -> None:
    pins = pushkin_pins()
    assert len({pin.sha256 for pin in pins.values()}) == len(pins) == 10
    for pin in pins.values():
        assert len(bytes.fromhex(pin.sha256)) == 32
        assert pin.url.isascii() and pin.url.startswith("https://raw.githubusercontent.com/")
        assert pin.size > 0
    assert not any("Годунов" in work or "Моцарт" in work for work in pins)


def test_fingerprint_does_not_depend_on_order_or_source() -> None:
    moved = Poem(RAIN.text, RAIN.title, RAIN.author, source="elsewhere.txt:3")
    assert corpus_sha256([SNOW, RAIN]) == corpus_sha256([moved, SNOW])


@pytest.mark.parametrize(
    "other",
    [
        [SNOW],
        [SNOW, RAIN, RAIN],
        [SNOW, Poem("Дождь идёт!", "Дождь", "Снегов")],
        [SNOW, Poem("Дождь идёт.", "", "Снегов")],
    ],
)
def test_fingerprint_changes_with_the_poems(other: list[Poem]) -> None:
    assert corpus_sha256(other) != corpus_sha256([SNOW, RAIN])


def test_fingerprint_of_the_empty_corpus_is_that_of_no_bytes() -> None:
    assert corpus_sha256([]) == hashlib.sha256(b"").hexdigest()
