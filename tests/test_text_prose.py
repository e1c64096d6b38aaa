"""Prose: the forms of its files, what is held out of it, and the corpora by name."""

import hashlib
import io
import json
import re
from pathlib import Path

import pytest

from minipoet.text import corpora, drop_duplicates
from minipoet.text.corpora import pushkin_prose_pins, read_prose_corpus
from minipoet.text.dedup import word_runs
from minipoet.text.download import Pin
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem
from minipoet.text.prose import hold_out, paragraphs, parse_book, parse_prose, read_prose

EMBEDDED = read_prose_corpus("embedded")


def fails(function, *arguments, **options) -> str:
    """The message with which a call fails."""
    with pytest.raises(CorpusError) as error:
        function(*arguments, **options)
    return str(error.value)


# ------------------------------------------------------------------------------------------------------------- files


def test_a_folder_has_one_work_a_file_and_stars_do_not_divide_it(tmp_path: Path) -> None:
    (tmp_path / "б").mkdir()
    (tmp_path / "б" / "Лес.txt").write_text("Шумел лес.\n\n* * *\n\nСтихло.\n***\n", encoding="utf-8")
    (tmp_path / "Двор.txt").write_text("\r\nПёс лаял.\r\n\r\n\r\n-- Цыц! -- сказал барин.", encoding="utf-8-sig")
    (tmp_path / ".hidden.txt").write_text("нет", encoding="utf-8")
    (tmp_path / "notes.md").write_text("нет", encoding="utf-8")
    works = read_prose(tmp_path, "А. Б.")
    assert [(work.title, work.text) for work in works] == [
        ("Двор", "Пёс лаял.\n— Цыц! — сказал барин."),
        ("Лес", "Шумел лес.\n* * *\nСтихло."),
    ]
    assert {work.author for work in works} == {"А. Б."}


def test_title_lines_divide_a_file_into_works(tmp_path: Path) -> None:
    path = tmp_path / "всё.txt"
    path.write_text("Пролог.\n# Лес\n\nШумел.\n## I\nСтих.\n***\n#  Двор \nПёс.\n#нет", encoding="utf-8")
    assert [(work.title, work.text) for work in read_prose(path)] == [
        ("всё", "Пролог."),
        ("Лес", "Шумел.\n## I\nСтих."),
        ("Двор", "Пёс.\n#нет"),
    ]


def test_records_are_works_and_the_author_is_found_by_words_of_the_name(tmp_path: Path) -> None:
    records = [
        {"text": "Шумел лес.\n\nСтих.", "title": "Лес", "author": "Пётр Снегов", "work": "Год"},
        {"text": "Пёс лаял.", "author": "Дождев"},
    ]
    path = tmp_path / "works.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    assert read_prose(path, "снегов петр") == [Poem("Шумел лес.\nСтих.", "Лес", "Пётр Снегов", "Год", f"{path}:1")]
    assert [work.author for work in read_prose_corpus(path)] == ["Пётр Снегов", "Дождев"]
    message = fails(read_prose, path, "Ветров")
    assert "Ветров" in message and "Пётр Снегов (1), Дождев (1)" in message


def test_empty_records_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "works.jsonl"
    path.write_text('{"text": " ", "title": "Лес"}\n{"text": "Да."}\n{"text": "***"}\n', encoding="utf-8")
    message = fails(read_prose, path)
    assert f"{path}:1: `text` is empty (Лес)" in message and f"{path}:3" in message and "2 record(s)" in message


def test_mistakes_about_files_are_told(tmp_path: Path) -> None:
    assert "no such file or folder" in fails(read_prose, tmp_path / "nowhere")
    assert "no .txt file in it" in fails(read_prose, tmp_path)
    (tmp_path / "book.doc").write_text("нет")
    assert "a .doc file; expected a folder of .txt files" in fails(read_prose, tmp_path / "book.doc")
    (tmp_path / "cp1251.txt").write_bytes("Шумел лес".encode("cp1251"))
    (tmp_path / "empty.txt").write_text(" \n***\n")
    message = fails(read_prose, tmp_path)
    assert "2 of 2 file(s)" in message and "it looks like cp1251" in message and "empty.txt: no text in it" in message
    assert "no text under the title(s) 'Лес', 'Двор'" in fails(parse_prose, "Да.\n# Лес\n\n# Двор\n***\n")


def test_paragraphs_are_cleaned_lines() -> None:
    assert paragraphs("***\n\n<p>Шёл&nbsp;снег.[1]</p>\n\n\n — Да... \n---\n") == "Шёл снег.\n— Да..."
    assert paragraphs("\n * * *\n") == ""


# --------------------------------------------------------------------------------------------------- what is held out


def work(*lengths: int, title: str = "") -> Poem:
    """A work with paragraphs of so many characters; each is one word, so no two share six."""
    return Poem("\n".join(chr(ord("а") + number) * length for number, length in enumerate(lengths)), title)


@pytest.mark.parametrize(
    ("lengths", "share", "held_out"),
    [
        ((50, 30, 10, 10), 0.1, (10,)),  # 10 of 100 exactly
        ((50, 30, 10, 10), 0.2, (10, 10)),
        ((50, 38, 4, 8), 0.1, (8,)),  # 8 and 12 are as near to 10: the shorter end
        ((50, 39, 4, 7), 0.1, (4, 7)),  # 11 is nearer to 10 than 7
        ((10, 90), 0.1, (90,)),  # there is no shorter end
        ((1, 1, 1), 0.9, (1, 1)),  # the first paragraph is always learnt
    ],
)
def test_the_last_paragraphs_nearest_to_the_share_are_held_out(lengths, share, held_out) -> None:
    (split, left_out) = hold_out([work(*lengths)], share)
    assert tuple(map(len, split.validation[0].text.split("\n"))) == held_out
    assert tuple(map(len, split.train[0].text.split("\n"))) == lengths[: -len(held_out)]
    assert left_out == 0


def test_a_work_of_one_paragraph_is_learnt() -> None:
    split, _ = hold_out([work(100, title="один"), work(5, 5, title="два")])
    assert [(w.title, len(w.text)) for w in split.train] == [("один", 100), ("два", 5)]
    assert [w.title for w in split.validation] == ["два"]


def test_a_held_out_paragraph_that_was_learnt_elsewhere_is_left_out() -> None:
    works = [
        Poem("Было утро.\nВ тот же вечер приехал и землемер.\nОн лёг спать.", "Лес"),
        Poem("Ночь была без звёзд, и шёл мелкий снег.\nВ ТОТ ЖЕ вечер, приехал — и доктор.\nСвеча погасла.", "Двор"),
        Poem("Был вечер, и был гость.\nОн в тот же вечер приехал — и землемер.", "Луг"),
    ]
    split, left_out = hold_out(works, 0.4)
    assert [w.text.count("\n") + 1 for w in split.train] == [2, 1, 1]
    # «В тот же вечер приехал и» are six words and were learnt in «Лес», with and without «землемер»
    assert [(w.title, w.text) for w in split.validation] == [("Лес", "Он лёг спать."), ("Двор", "Свеча погасла.")]
    assert left_out == 2


def test_named_works_are_held_out_whole_and_all_of_the_others_is_learnt() -> None:
    works = [work(5, 5, title="Лес"), work(7, 7, title="Пчёлы"), work(9, 9, title="Двор")]
    split, _ = hold_out(works, titles=["пчелы", "ДВОР"])
    assert split.train == works[:1] and split.validation == works[1:]
    message = fails(hold_out, works, titles=["Лес", "Луг", "Поле"])
    assert "«Луг», «Поле»" in message and "«Лес», «Пчёлы», «Двор»" in message


def test_a_side_without_text_is_refused() -> None:
    assert "nothing is left to measure on" in fails(hold_out, [work(100)])
    assert "nothing is left to learn from" in fails(hold_out, [work(5, 5, title="Лес")], titles=["Лес"])
    assert "0 < share < 1, got 1" in fails(hold_out, [work(5, 5)], 1)


def test_the_sides_of_the_embedded_prose_make_the_whole_and_share_no_six_words() -> None:
    split, left_out = hold_out(EMBEDDED)
    assert left_out == 0
    pairs = zip(split.train, split.validation, strict=True)
    assert [f"{head.text}\n{tail.text}" for head, tail in pairs] == [w.text for w in EMBEDDED]
    runs = [set().union(*(word_runs(w.text) for w in side)) for side in (split.train, split.validation)]
    assert not runs[0] & runs[1]
    assert 0.07 < sum(len(w.text) for w in split.validation) / sum(len(w.text) for w in EMBEDDED) < 0.11


# ----------------------------------------------------------------------------------------------------------- by name


def test_a_book_ends_with_its_last_words_and_has_no_marks_of_notes() -> None:
    book = "Лес\n\nШумел[2] лес(13) в <17..> году (1).\n\nТут всё и стихло(14)!\n\nПримечания\n\n2\n\nТут всё и стихло."
    found = parse_book(book, "Лес", "всё и стихло", "А. Б.", "Лес.txt")
    assert found == Poem("Лес\nШумел лес в 17.. году (1).\nТут всё и стихло!", "Лес", "А. Б.", source="Лес.txt")
    assert "«Лес», «и смолкло», are not in it" in fails(parse_book, book, "Лес", "и смолкло")


def test_pushkin_prose_is_made_of_the_pinned_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "Кирджали": "Кирджали\nПовесть\n\nБыл он[1] не отсюда.\nКаков Кирджали?\nПримечания\n\n1\n\nКто?",
        "Рославлев": "Рославлев\n\nОна упала без чувств...",
    }
    pins = {
        title: Pin(
            f"https://example.org/{number}.txt", hashlib.sha256(text.encode()).hexdigest(), len(text.encode()), ""
        )
        for number, (title, text) in enumerate(files.items())
    }
    by_url = {pins[title].url: text.encode() for title, text in files.items()}
    monkeypatch.setattr(corpora, "pushkin_prose_pins", lambda: pins)
    works = read_prose_corpus("pushkin-prose", cache=tmp_path, open_url=lambda url: io.BytesIO(by_url[url]))
    assert [(w.title, w.text, w.author) for w in works] == [
        ("Кирджали", "Кирджали\nПовесть\nБыл он не отсюда.\nКаков Кирджали?", corpora.PUSHKIN),
        ("Рославлев", "Рославлев\nОна упала без чувств...", corpora.PUSHKIN),
    ]


def test_the_pins_of_the_prose_are_well_formed_and_each_work_has_its_last_words() -> None:
    pins = pushkin_prose_pins()
    assert len({pin.sha256 for pin in pins.values()}) == len(pins) == 10
    assert pins.keys() == corpora._LAST_WORDS.keys()
    for pin in pins.values():
        assert len(bytes.fromhex(pin.sha256)) == 32
        assert pin.url.isascii() and pin.url.startswith("https://raw.githubusercontent.com/d0rj/RusLit/4509680428")
    assert sum(pin.size for pin in pins.values()) == 1683699


def test_an_unknown_name_lists_the_names_and_a_missing_file_is_told(tmp_path: Path, monkeypatch) -> None:
    assert "the names are embedded and pushkin-prose" in fails(read_prose_corpus, "pushkin")
    monkeypatch.setattr(corpora.resources, "files", lambda package: tmp_path)
    assert "pushkin_prose_manner.txt is missing" in fails(read_prose_corpus, "embedded")


# ------------------------------------------------------------------------------------------------ the embedded prose


def test_there_are_a_dozen_titled_works_of_a_few_pages() -> None:
    assert len({w.title for w in EMBEDDED}) == len(EMBEDDED) == 12
    assert all(w.title and 4000 < len(w.text) < 6000 for w in EMBEDDED)
    assert drop_duplicates(EMBEDDED)[1] == []


def test_paragraphs_end_as_sentences_do_and_use_russian_letters_and_plain_signs() -> None:
    letters = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"
    for w in EMBEDDED:
        assert not set(w.text) - set(letters + letters.upper() + "0123456789 \n,.!?:;—-«»")
        assert [line for line in w.text.split("\n") if not re.search(r"[.!?:]»?$", line)] == []


def test_yo_is_written() -> None:
    text = "\n".join(w.text for w in EMBEDDED).lower()
    assert text.count("ё") > 200
    assert not re.findall(r"\b(?:еще|ее|шел|пошел|нашел|прочел|счет|зелен\w+|причем|вперед|все-таки|звезд\w+)\b", text)
