"""Large collections: every way in which a file is packed or broken, what is counted, and that it is a stream."""

import gzip
import importlib
import json
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minipoet.text import CorpusError, Poem, ReadReport, VerseFilter, read_corpus, read_poems, read_stihi, stream_stihi
from minipoet.text import rows as rows_module
from minipoet.text.rows import LONGEST, read_rows

VERSES = [
    f"Над полем тихий снег летит {number}\nИ старый сад стоит пустой\nА за окном фонарь горит\nИ кто-то ходит под луной"
    for number in range(6)
]


def line(text: object, **fields: object) -> bytes:
    return json.dumps({"id": "7", "text": text} | fields, ensure_ascii=False).encode() + b"\n"


LINES = [line(text, title=f"Снег {number}", author="Снегов", genre="лирика") for number, text in enumerate(VERSES)]


def zstd_frame(data: bytes) -> bytes:
    return pytest.importorskip("zstandard").ZstdCompressor().compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {".jsonl": bytes, ".jsonl.gz": gzip.compress, ".jsonl.zst": zstd_frame}


def write(folder: Path, suffix: str, *pieces: bytes) -> Path:
    """A file of that kind, each piece a frame of its own."""
    path = folder / f"poems{suffix}"
    path.write_bytes(b"".join(PACKERS[suffix](piece) for piece in pieces))
    return path


def write_parquet(path: Path, columns: dict[str, list[Any]], group: int = 2) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


def spoilt(frame: bytes) -> bytes:
    """A frame with its second half zeroed: it still begins as one."""
    return frame[: len(frame) // 2] + bytes(len(frame) - len(frame) // 2)


def texts(poems: list[Poem]) -> list[str]:
    return [poem.text for poem in poems]


@pytest.mark.parametrize("suffix", PACKERS)
def test_poems_are_read_from_each_packing(tmp_path, suffix):
    path = write(tmp_path, suffix, b"".join(LINES))
    poems, report = read_stihi(path)
    assert poems == [
        Poem(text, f"Снег {number}", "Снегов", source=f"{path}:{number + 1}") for number, text in enumerate(VERSES)
    ]
    assert (report.read, report.kept, report.broken, report.rejected.total()) == (6, 6, 0, 0)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_file_of_several_frames_is_read_to_its_end_wherever_they_are_cut(tmp_path, suffix):
    data = b"".join(LINES)
    for cut in (1, len(LINES[0]), 333, len(data) - 1):
        assert texts(read_stihi(write(tmp_path, suffix, data[:cut], data[cut:]))[0]) == VERSES


def test_parquet_is_read_group_by_group_and_only_the_needed_columns(tmp_path):
    columns = {"url": ["x"] * 6, "text": VERSES, "title": [None, *"абвгд"], "topic": ["о"] * 6}
    path = write_parquet(tmp_path / "poems.parquet", columns)
    poems, report = read_stihi(path, first=5)
    assert poems == [Poem(text, title or "", source=f"{path}:{n}") for n, (text, title) in
                     enumerate(zip(VERSES[:5], columns["title"][:5], strict=True), start=1)]  # fmt: skip
    assert report.read == 5
    assert [set(row) for _, row in read_rows(path, ["title", "text", "x"])] == [{"text", "title"}] * 6


def test_what_a_file_is_its_bytes_say_and_not_its_name(tmp_path):
    path = tmp_path / "poems.jsonl.zst"
    path.write_bytes(gzip.compress(b"".join(LINES)))
    assert texts(read_stihi(path)[0]) == VERSES


def test_folder_is_read_file_by_file_in_the_order_of_names(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(LINES[1])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(LINES[0]))
    (tmp_path / "README.md").write_text("no")
    poems, report = read_stihi(tmp_path)
    assert [Path(poem.source).name for poem in poems] == ["a.jsonl.gz:1", "b.jsonl:1"]
    assert report.source == str(tmp_path)


def test_first_stops_reading(tmp_path):
    path = write(tmp_path, ".jsonl", *LINES[:2], line("мало"), LINES[2], b"{broken\n")
    poems, report = read_stihi(path, first=3)
    assert texts(poems) == VERSES[:3]
    assert (report.read, report.broken, report.rejected) == (4, 0, {"too short": 1})


@pytest.mark.parametrize("suffix", [*PACKERS, ".parquet"])
def test_a_file_is_never_in_memory_whole(tmp_path, suffix):
    source = random.Random(0)
    long = ["".join(source.choices("абвгд \n", k=10_000)) for _ in range(400)]  # 8 MB
    if suffix == ".parquet":
        path = write_parquet(tmp_path / "p.parquet", {"text": long}, group=50)
    else:
        path = write(tmp_path, suffix, b"".join(map(line, long)))
    tracemalloc.start()
    try:
        assert sum(len(row["text"]) for _, row in read_rows(path, ["text"])) == 4_000_000  # type: ignore[call-overload]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e6


BROKEN = [
    (b'{"text": "\n', "not JSON"),
    (b"[1, 2]\n", "expected an object, got list"),
    (b'{"title": "\xd0\xa1"}\n', "no text; expected a field `text`, the fields are 'title'"),
    (line(None), "no text"),
    (line(5), "`text` must be a string, got int"),
    (line(VERSES[0]).decode().encode("cp1251"), "got byte 0xcd at byte 21 of the line; it looks like cp1251"),
    (b'{"text": "' + VERSES[0].encode().replace(b"\n", rb"\n") + rb'\ud83d"}' + b"\n", "a lone surrogate, U+D83D"),
    (b"[" * 100_000 + b"\n", "not JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), BROKEN, ids=lambda value: "" if isinstance(value, bytes) else value[:20])
def test_broken_line_in_the_middle_is_counted_and_passed_over_or_fatal(tmp_path, bad, message):
    path = write(tmp_path, ".jsonl", *LINES[:3], bad, b"\n", *LINES[3:])
    poems, report = read_stihi(path)
    assert texts(poems) == VERSES
    assert (report.read, report.broken) == (7, 1)
    assert report.problems[0].startswith(f"{path}:4: ") and message in report.problems[0]
    with pytest.raises(CorpusError, match=r"poems\.jsonl:4: ") as error:
        read_stihi(path, strict=True)
    assert message in str(error.value)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("hurt", [spoilt, lambda frame: frame[:6] + b"\xff" * 9 + frame[15:]])
def test_broken_frame_is_counted_and_the_next_one_is_read(tmp_path, suffix, hurt):
    pack, path = PACKERS[suffix], tmp_path / f"poems{suffix}"
    path.write_bytes(pack(LINES[0] + LINES[1]) + hurt(pack(b"".join(LINES[2:4]))) + pack(LINES[4] + LINES[5]))
    poems, report = read_stihi(path)
    assert texts(poems)[:2] == VERSES[:2]
    assert texts(poems)[-2:] == VERSES[4:]
    assert report.broken >= 1
    assert any("a broken" in problem and "frame" in problem for problem in report.problems)
    with pytest.raises(CorpusError, match=rf"poems\{suffix}:\d+: a broken"):
        read_stihi(path, strict=True)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
@pytest.mark.parametrize("chunk", [5, 16, 1 << 14])
def test_next_frame_is_found_wherever_the_reader_stands(tmp_path, monkeypatch, suffix, chunk):
    monkeypatch.setattr(rows_module, "_CHUNK", chunk)
    pack, path = PACKERS[suffix], tmp_path / f"poems{suffix}"
    for length in range(40, 48):
        broken = pack(LINES[1])[:length]
        no_frame = broken[:4] + b"\xff" * length  # it only begins like one
        path.write_bytes(pack(LINES[0]) + broken + no_frame + pack(LINES[2]))
        poems, report = read_stihi(path)
        assert (texts(poems)[0], texts(poems)[-1]) == (VERSES[0], VERSES[2])
        assert sum("frame" in problem for problem in report.problems) == 1


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_of_a_file_cut_short_what_was_read_is_kept(tmp_path, suffix):
    data = [
        line(text + "\n" + "".join(map(chr, range(0x430 + n % 7, 0x450))) * 2) for n, text in enumerate(VERSES * 500)
    ]
    whole = PACKERS[suffix](b"".join(data))
    path = tmp_path / f"poems{suffix}"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    poems, report = read_stihi(path)
    assert 0 < len(poems) < len(data)
    assert report.broken == 1
    assert "the file is cut short" in report.problems[0]
    with pytest.raises(CorpusError, match="cut short"):
        read_stihi(path, strict=True)


def test_endless_line_is_no_line_and_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "LONGEST", 1000)
    monkeypatch.setattr(rows_module, "_CHUNK", 100)
    path = write(tmp_path, ".jsonl", LINES[0], b"[" + LINES[1].strip() * 20 + b"\n", LINES[2])
    poems, report = read_stihi(path)
    assert texts(poems) == [VERSES[0], VERSES[2]]
    assert report.broken == 1 and "a line of more than" in report.problems[0]
    assert LONGEST == 16 << 20


def test_half_of_a_parquet_file_is_an_error_that_says_why(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", {"text": VERSES})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorpusError, match=r"p\.parquet: cannot be read as parquet .* is it complete\?"):
        read_stihi(path)


def test_broken_group_of_rows_is_counted_and_the_next_one_is_read(tmp_path):
    path = write_parquet(tmp_path / "p.parquet", {"text": VERSES})
    data = bytearray(path.read_bytes())
    place = pytest.importorskip("pyarrow.parquet").ParquetFile(path).metadata.row_group(1).column(0)
    first = place.dictionary_page_offset or place.data_page_offset
    data[first : first + place.total_compressed_size] = b"\xff" * place.total_compressed_size
    path.write_bytes(bytes(data))
    poems, report = read_stihi(path)
    assert texts(poems) == [*VERSES[:2], *VERSES[4:]]
    assert (
        report.broken == 1
        and "a broken group of rows" in report.problems[0]
        and "2 rows are lost" in report.problems[0]
    )
    assert poems[2].source == f"{path}:5"


@pytest.mark.parametrize(("module", "suffix"), [("zstandard", ".jsonl.zst"), ("pyarrow", ".parquet")])
def test_missing_extra_is_named_with_the_way_to_get_it(tmp_path, monkeypatch, module, suffix):
    path = tmp_path / f"poems{suffix}"
    path.write_bytes({".parquet": b"PAR1", ".jsonl.zst": b"\x28\xb5\x2f\xfd"}[suffix] + bytes(20))
    found = importlib.import_module

    def absent(name: str) -> Any:
        if name.split(".")[0] in (module, "compression"):
            raise ImportError(name)
        return found(name)

    monkeypatch.setattr(rows_module.importlib, "import_module", absent)
    with pytest.raises(CorpusError, match=rf'{module}, which is not installed: pip install "minipoet\[corpora\]"'):
        read_stihi(path)


def test_names_of_fields_come_from_the_table_and_others_are_ignored(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(
        json.dumps({"content": VERSES[0], "name": "Снег", "author_name": "С.", "title": None, "x": []}).encode()
    )
    (poem,), _ = read_stihi(path)
    assert (poem.text, poem.title, poem.author) == (VERSES[0], "Снег", "С.")


def test_title_that_is_no_string_costs_no_poem(tmp_path):
    (poem,), report = read_stihi(write(tmp_path, ".jsonl", line(VERSES[0], title=["a"], author=5)))
    assert (poem.title, poem.author, report.broken) == ("", "", 0)


def test_poems_are_cleaned_before_they_are_judged(tmp_path):
    dirty = "<p>" + VERSES[0].replace("\n", "<br>") + "</p>"
    assert texts(read_stihi(write(tmp_path, ".jsonl", line(dirty)))[0]) == [VERSES[0]]


def test_report_adds_up_and_says_so_in_one_paragraph(tmp_path):
    prose = "Он вышел из дома и пошёл по улице, " * 9
    path = write(tmp_path, ".jsonl", *LINES, line("мало"), line("мало"), line(f"{prose}\n" * 4), b"[]\n")
    poems, report = read_stihi(path)
    assert report.read == report.kept + report.broken + report.rejected.total() == 10
    assert str(report) == (
        f"{path}: 10 read, 6 kept; left out 3 (2 too short, 1 lines of prose); broken 1, the first: "
        f"{path}:10: expected an object, got list."
    )
    assert len(poems) == 6


def test_report_of_a_stream_grows_with_it(tmp_path):
    report = ReadReport()
    stream = stream_stihi(write(tmp_path, ".jsonl", *LINES), report=report)
    assert [next(stream).text for _ in range(2)] == VERSES[:2]
    assert report.kept == 2


def test_without_a_filter_every_text_with_a_word_is_kept(tmp_path):
    path = write(tmp_path, ".jsonl", line("да"), line(" <br> "), line("The End"))
    assert texts(read_stihi(path, keep=None)[0]) == ["да", "The End"]


def test_collections_are_read_by_path_as_other_corpora_are(tmp_path):
    path = write(tmp_path, ".jsonl.zst", *LINES)
    assert texts(read_corpus(path)) == texts(read_poems(path, author="Снегов")) == VERSES
    assert texts(read_poems(write_parquet(tmp_path / "p.parquet", {"text": VERSES}))) == VERSES
    with pytest.raises(CorpusError, match=r"p\.jsonl\.zst:1: no field `text`"):
        read_poems(write(tmp_path, ".jsonl.zst", b'{"title": "a"}').rename(tmp_path / "p.jsonl.zst"))


def mistakes(folder: Path) -> Iterator[tuple[Callable[[], object], str]]:
    empty = folder / "empty"
    empty.mkdir()
    pointer = folder / "stihi_ru.jsonl.zst"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1940000000\n")
    good = write(folder, ".jsonl", *LINES)
    prose = write(folder, ".jsonl.gz", line("Проза. " * 40))
    yield lambda: read_stihi(folder / "no.jsonl"), "no.jsonl: cannot be read (No such file or directory)"
    yield lambda: read_stihi(empty), "empty: no file of a collection in it; expected .jsonl, .jsonl.gz, .jsonl.zst"
    yield lambda: read_stihi(pointer), "a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
    yield lambda: read_stihi(good, first=0), "first must be a whole number of poems, at least 1, or None for all, got 0"
    yield lambda: read_stihi(good, keep="all"), "keep must be a VerseFilter, or None to keep every text, got 'all'"  # type: ignore[arg-type]
    yield lambda: read_stihi(good, keep=VerseFilter), "keep must be a VerseFilter"  # type: ignore[arg-type]
    yield lambda: read_stihi(5), "The collection of poems must be a path"  # type: ignore[arg-type]
    yield lambda: read_stihi(prose), "no poem was kept. "
    yield lambda: read_stihi(prose), "1 read, 0 kept; left out 1 (1 too few lines); broken 0."


def test_mistakes_of_a_careless_user_get_one_sentence(tmp_path):
    for act, message in mistakes(tmp_path):
        with pytest.raises(ValueError) as error:
            act()
        assert message in str(error.value)


def test_gzip_of_zlib_and_of_python_are_one(tmp_path):
    packer = zlib.compressobj(wbits=31)
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(packer.compress(LINES[0]) + packer.flush() + bytes(512))  # filled up, as on a tape
    poems, report = read_stihi(path)
    assert texts(poems) == VERSES[:1] and report.broken == 0
