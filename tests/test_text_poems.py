"""Reading poems: the three forms, and errors that say where and what."""

import gzip
import json
from pathlib import Path

import pytest

from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem, parse_poems, read_poems
from minipoet.text.records import read_records, read_text

SNOW = "Над полем тихий снег летит,\nИ дремлет старый сад."
RAIN = "Стучит по крыше мелкий дождь,\nИ лампа не горит."


def write_jsonl(path: Path, *records: object) -> Path:
    """A JSONL file of the records; a string is written as it is."""
    lines = [record if isinstance(record, str) else json.dumps(record, ensure_ascii=False) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def fails(path: Path, **options: str) -> str:
    """The message with which reading fails."""
    with pytest.raises(CorpusError) as error:
        read_poems(path, **options)  # type: ignore[arg-type]
    return str(error.value)


@pytest.mark.parametrize("divider", ["***", "* * *", "---", "=====", "  - - -  "])
def test_text_file_is_divided_at_lines_of_signs(divider: str) -> None:
    poems = parse_poems(f"# Снег\n{SNOW}\n\n{divider}\n\n{RAIN}\n", source="мои.txt", author="Я")
    assert poems == [Poem(SNOW, "Снег", "Я", "", "мои.txt:1"), Poem(RAIN, "", "Я", "", "мои.txt:7")]


def test_dividers_at_the_ends_divide_nothing() -> None:
    assert [poem.text for poem in parse_poems(f"***\n{SNOW}\n***\n***\n")] == [SNOW]


def test_stanzas_and_dashes_do_not_divide() -> None:
    assert len(parse_poems(f"{SNOW}\n\n—\n\n- Пора!\n--\n{RAIN}")) == 1


def test_folder_is_read_in_the_order_of_names_with_titles_from_names(tmp_path: Path) -> None:
    (tmp_path / "б").mkdir()
    (tmp_path / "б" / "Дождь.txt").write_text(RAIN, encoding="utf-8")
    (tmp_path / "а.txt").write_text(f"# Снег\r\n{SNOW}", encoding="utf-8-sig")
    (tmp_path / "в.txt").write_text(f"{SNOW}\n***\n{RAIN}", encoding="utf-8")
    (tmp_path / ".hidden.txt").write_text(RAIN, encoding="utf-8")
    (tmp_path / "notes.md").write_text("no", encoding="utf-8")
    poems = read_poems(tmp_path, author="Я")
    assert [(poem.title, poem.text) for poem in poems] == [("Снег", SNOW), ("Дождь", RAIN), ("", SNOW), ("", RAIN)]
    assert {poem.author for poem in poems} == {"Я"}


@pytest.mark.parametrize("packed", [False, True])
def test_jsonl_is_read_plain_and_gzipped(tmp_path: Path, packed: bool) -> None:
    path = write_jsonl(
        tmp_path / "poems.jsonl",
        {"text": SNOW, "title": " Снег ", "author": "А. Б.", "work": "Год", "id": 7},
        {"text": RAIN, "title": None},
    )
    if packed:
        data, path = path.read_bytes(), tmp_path / "poems.jsonl.gz"
        path.write_bytes(gzip.compress(data))
    assert read_poems(path) == [Poem(SNOW, "Снег", "А. Б.", "Год", f"{path}:1"), Poem(RAIN, source=f"{path}:2")]


def test_author_is_found_by_any_words_of_the_name(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "p.jsonl", {"text": SNOW, "author": "Пётр Ильич Снегов"}, {"text": RAIN, "author": "Дождев"}
    )
    assert [poem.text for poem in read_poems(path, author="снегов петр")] == [SNOW]
    assert "Дождев (1)" in fails(path, author="Ветров")


def test_drama_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "p.jsonl", {"text": SNOW, "kind": "poem"}, {"text": RAIN, "kind": "drama"})
    assert [poem.text for poem in read_poems(path)] == [SNOW]
    assert len(read_poems(path, drama=True)) == 2


def test_error_when_only_plays_are_there_says_so(tmp_path: Path) -> None:
    assert "1 play(s) left out (drama=True" in fails(write_jsonl(tmp_path / "p.jsonl", {"text": RAIN, "kind": "drama"}))


def test_all_wrong_lines_are_told_with_their_numbers(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "p.jsonl", {"text": SNOW}, "{broken", {"title": "нет"}, "", [1], {"text": 5, "title": []}
    )
    message = fails(path)
    assert "4 wrong line(s)" in message
    assert "p.jsonl:2: not JSON" in message
    assert "p.jsonl:3: no field `text`; the fields are 'title'" in message
    assert "p.jsonl:5: expected an object, got list" in message
    assert "p.jsonl:6: `title` must be a string, got list; `text` must be a string, got int" in message


def test_no_record_comes_after_a_wrong_line(tmp_path: Path) -> None:
    records = read_records(write_jsonl(tmp_path / "p.jsonl", {"text": "а"}, "{", {"text": "б"}))
    assert next(records).text == "а"
    with pytest.raises(CorpusError, match=r"p\.jsonl:2"):
        next(records)


def test_records_keep_the_date_and_the_raw_text(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "prose.jsonl", {"text": " Он вышел.<br>", "date": "1999", "author": "А"})
    (record,) = read_records(path)
    assert (record.text, record.date, record.author) == (" Он вышел.<br>", "1999", "А")


def test_record_without_verse_is_an_error(tmp_path: Path) -> None:
    assert "p.jsonl:2: `text` is empty (Пусто)" in fails(
        write_jsonl(tmp_path / "p.jsonl", {"text": SNOW}, {"text": " <br>", "title": "Пусто"})
    )


def test_truncated_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps({"text": SNOW}).encode())[:-9])
    assert "is it complete" in fails(path)


@pytest.mark.parametrize("encoding", ["cp1251", "koi8-r", "cp866"])
def test_other_encodings_are_recognised(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(f"ab\n{SNOW}".encode(encoding))
    with pytest.raises(CorpusError) as error:
        read_text(path)
    assert "at offset 3 (line 2)" in str(error.value)
    assert f"iconv -f {encoding} -t UTF-8 '{path}'" in str(error.value)


def test_one_wrong_byte_is_not_taken_for_an_encoding(tmp_path: Path) -> None:
    path = tmp_path / "spoilt.txt"
    path.write_bytes(SNOW.encode() + b"\xff" + RAIN.encode())
    assert "mend the byte" in fails(path)


def test_wrong_encoding_in_jsonl_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"text": "ok"}\n' + f'{{"text": "{SNOW.splitlines()[0]}"}}\n'.encode("cp1251"))
    message = fails(path)
    assert "p.jsonl:2: expected UTF-8" in message
    assert "looks like cp1251" in message


def test_folder_tells_all_its_problems_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n", encoding="utf-8")
    (tmp_path / "old.txt").write_bytes(SNOW.encode("cp1251"))
    (tmp_path / "good.txt").write_text(SNOW, encoding="utf-8")
    message = fails(tmp_path)
    assert "2 of 3 file(s) cannot be used" in message
    assert "empty.txt: no poem" in message
    assert "old.txt: expected UTF-8" in message


def test_empty_folder_names_the_jsonl_that_is_there(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "poems.jsonl", {"text": SNOW})
    assert "poems.jsonl is there: give that file itself" in fails(tmp_path)


def test_title_without_a_poem_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text(f"# Снег\n{SNOW}\n***\n# Забытое\n", encoding="utf-8")
    assert "p.txt:5: the title 'Забытое' has no poem under it" in fails(path)


@pytest.mark.parametrize("name", ["missing.txt", "picture.png"])
def test_missing_and_unknown_files_are_errors_that_say_what_is_expected(tmp_path: Path, name: str) -> None:
    (tmp_path / "picture.png").write_bytes(b"")
    assert "expected a folder of .txt files" in fails(tmp_path / name)
