"""Reviews: every way in which a line of the file may be, what is counted, and how a review is asked for."""

import gzip
import hashlib
import io
import tracemalloc
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from minipoet.text import reviews as reviews_module
from minipoet.text.download import Pin
from minipoet.text.errors import CorpusError
from minipoet.text.reviews import (
    GEO_REVIEWS,
    Review,
    clean_review,
    count_ratings,
    parse_review_request,
    read_reviews,
    review_request,
    stream_reviews,
)


def line(text: str, rating: str = "5.", rubrics: str = "Кафе", **fields: str) -> str:
    """A line of the public file; fields in its order."""
    first = {"address": "Тверь, Речная улица, 7", "name_ru": "Тёплый угол"} | fields
    values = first | {"rating": rating, "rubrics": rubrics, "text": text}
    return "\t".join(f"{key}={value}" for key, value in values.items())


def write(folder: Path, *lines: str, end: str = "\n") -> Path:
    path = folder / "reviews.tskv"
    path.write_bytes("".join(f"{one}{end}" for one in lines).encode())
    return path


def only(folder: Path, one: str) -> Review:
    """The review of a file of that line."""
    reviews, report = read_reviews(write(folder, one))
    assert (report.read, report.kept) == (1, 1)
    return reviews[0]


def broken(folder: Path, one: str) -> str:
    """What is told of a line, in a file that has a good one, too."""
    report = read_reviews(write(folder, line("Хороший кофе."), one))[1]
    assert (report.read, report.kept, report.broken.total()) == (2, 1, 1)
    ((why, places),) = report.places.items()
    assert places == [2]
    return why


def test_line_becomes_a_review(tmp_path):
    assert only(tmp_path, line("Тёплый хлеб.", "3.", "Кафе;Бар, паб; Пекарня ")) == Review(
        "Тёплый хлеб.", 3, ("Кафе", "Бар, паб", "Пекарня"), "Тёплый угол", "Тверь, Речная улица, 7"
    )


def test_fields_are_found_by_key_and_divided_at_the_first_equals_sign(tmp_path):
    review = only(tmp_path, "text=Пять = пять.\tnew=1\trating=5\trubrics=Кафе")
    assert review == Review("Пять = пять.", 5, ("Кафе",))


def test_backslash_n_is_a_line_break(tmp_path):
    assert only(tmp_path, line("Раз.\\n \\n\\n\\nДва.\\n")).text == "Раз.\n\nДва."


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_both_kinds_of_line_end_and_a_bom_are_read(tmp_path, end):
    path = write(tmp_path, "\ufeff" + line("Раз."), "", line("Два."), end=end)
    reviews, report = read_reviews(path)
    assert [review.text for review in reviews] == ["Раз.", "Два."]
    assert [review.address[:5] for review in reviews] == ["Тверь", "Тверь"]
    assert report.read == 2


def test_last_line_needs_no_end_and_the_file_may_be_packed(tmp_path):
    path = tmp_path / "reviews.tskv"
    path.write_bytes(gzip.compress(f"{line('Раз.')}\n{line('Два.')}".encode()))
    assert [review.text for review in read_reviews(path)[0]] == ["Раз.", "Два."]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (line("Да.", rating="6."), "a rating that is no whole number from 0 to 5"),
        (line("Да.", rating="4.5"), "a rating that is no whole number from 0 to 5"),
        (line("Да.", rating="-1"), "a rating that is no whole number from 0 to 5"),
        (line("Да.", rating="nan"), "a rating that is no whole number from 0 to 5"),
        (line("Да.", rating=""), "a rating that is no whole number from 0 to 5"),
        (line(""), "an empty text"),
        (line(" \\n \u200b"), "an empty text"),
        (line("👍👍!"), "a text without a letter"),
        (line("Да.", rubrics=" ; "), "empty rubrics"),
        ("rating=5.\trubrics=Кафе", "no text"),
        ("rubrics=Кафе\taddress=Тверь", "no rating, no text"),
        (line("Раз.\tДва."), "a field without «=»"),
        (line("Раз.\ttext=Два."), "a key twice"),
        ("Раз.", "a field without «=»"),
    ],
)
def test_broken_line_is_counted_by_its_reason_and_place(tmp_path, wrong, told):
    assert broken(tmp_path, wrong) == told


def test_line_in_another_encoding_is_told_with_its_name(tmp_path):
    path = write(tmp_path, line("Хороший кофе."))
    path.write_bytes(path.read_bytes() + line("Очень вкусный кофе.").encode("cp1251") + b"\n")
    report = read_reviews(path)[1]
    assert report.broken == {"not UTF-8 (it looks like cp1251: iconv -f cp1251 -t UTF-8)": 1}


def test_rating_of_zero_is_none(tmp_path):
    reviews, report = read_reviews(write(tmp_path, line("Раз.", "0."), line("Два.", "1.")))
    assert [review.rating for review in reviews] == [1]
    assert (report.read, report.kept, report.unrated) == (2, 1, 1)


def test_of_copies_the_first_is_kept(tmp_path):
    texts = ["Всё отлично!", "Вкусный кофе.", "Всё  отлично!", "ВСЕ ОТЛИЧНО", "Все отлично, да"]
    reviews, report = read_reviews(write(tmp_path, *map(line, texts)))
    assert [review.text for review in reviews] == ["Всё отлично!", "Вкусный кофе.", "Все отлично, да"]
    assert (report.read, report.kept, report.copies, report.variants) == (5, 3, 1, 1)


def test_report_adds_up_and_can_be_read(tmp_path):
    wrong = [line("Да.", rating="9") for _ in range(7)]
    path = write(tmp_path, line("Раз."), line("Раз."), line("раз"), line("Два.", "0."), *wrong, line(""))
    report = read_reviews(path)[1]
    assert report.read == report.kept + report.unrated + report.copies + report.variants + report.broken.total() == 12
    assert str(report) == (
        f"{path}: 12 read, 1 kept; left out 1 without a rating, 1 copies, 1 copies but for case and punctuation, "
        "8 broken:\n"
        "  - 7 × a rating that is no whole number from 0 to 5 (line 5, 6, 7, 8, 9, …)\n"
        "  - 1 × an empty text (line 12)"
    )


def test_limit_stops_reading(tmp_path):
    reviews, report = read_reviews(write(tmp_path, line("Раз."), line(""), line("Два."), line("Три.")), limit=2)
    assert [review.text for review in reviews] == ["Раз.", "Два."]
    assert report.read == 3
    with pytest.raises(CorpusError, match="limit must be a whole number of reviews, at least 1"):
        read_reviews(tmp_path / "reviews.tskv", limit=0)


def test_file_without_a_review_is_an_error_with_the_report(tmp_path):
    with pytest.raises(CorpusError) as error:
        read_reviews(write(tmp_path, "address,rating,text", "Тверь,5,Хорошо"))
    assert "no review was found" in str(error.value) and "2 × a field without «=» (line 1, 2)" in str(error.value)
    assert "rating=5.⇥rubrics=Кафе⇥text=…" in str(error.value)


def test_path_that_is_not_there_is_told_with_the_names_that_are(tmp_path):
    with pytest.raises(CorpusError, match="the names are embedded-reviews and geo-reviews"):
        read_reviews(tmp_path / "geo-review")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_reviews(tmp_path)


def test_pointer_of_git_lfs_is_told_with_the_right_address(tmp_path):
    path = tmp_path / "reviews.tskv"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:3aa1\nsize 378730064\n")
    with pytest.raises(CorpusError) as error:
        read_reviews(path)
    assert "a pointer of Git LFS" in str(error.value) and GEO_REVIEWS.url in str(error.value)


def test_pin_is_the_public_file_at_its_commit():
    address = urlsplit(GEO_REVIEWS.url)
    assert address.netloc == "media.githubusercontent.com"  # raw.githubusercontent.com has a pointer there
    assert address.path == (
        "/media/yandex/geo-reviews-dataset-2023/60ca4b75b47c57eb2c91fbdcfc6a4a6f8bc0937f/geo-reviews-dataset-2023.tskv"
    )
    assert GEO_REVIEWS.size == 378_730_064
    assert GEO_REVIEWS.sha256 == "3aa1a838276e23217b14d904f47ab20c753751a48eef8e046d6d671a65098109"
    assert GEO_REVIEWS.licence == "MIT, © 2023 YANDEX LLC"


def test_public_file_is_fetched_by_name(tmp_path, monkeypatch):
    data = f"{line('Раз.')}\n".encode()
    pin = Pin(GEO_REVIEWS.url, hashlib.sha256(data).hexdigest(), len(data), "test")
    monkeypatch.setattr(reviews_module, "GEO_REVIEWS", pin)
    asked = []

    def network(url):
        asked.append(url)
        return io.BytesIO(data)

    for _ in range(2):
        reviews, _report = read_reviews("geo-reviews", cache=tmp_path, open_url=network)
        assert [review.text for review in reviews] == ["Раз."]
    assert asked == [GEO_REVIEWS.url]


def test_file_is_never_in_memory_whole(tmp_path):
    path = write(tmp_path, *(line(f"Отзыв {number}: " + "хорошо " * 500) for number in range(2000)))
    assert path.stat().st_size > 12_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream_reviews(path)) == 2000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Очень\u00a0 вкусно \t, да", "Очень вкусно , да"),
        ("Раз \r\n Два\rТри\u2028Четыре", "Раз\nДва\nТри\nЧетыре"),
        ("Раз\n\n\n\nДва", "Раз\n\nДва"),
        ("Й и и\u0306", "Й и й"),
        ("сло\u00adво\u200b\x07", "слово"),
        ("Класс!!!!! Ну....... ))))) и всё… ???!", "Класс!!! Ну... ))) и всё... ???!"),
        ("Оооочень", "Оооочень"),
        ("👨‍👩‍👧 ❤️ 👍🏻", "👨‍👩‍👧 ❤️ 👍🏻"),
        ("Раз ……", "Раз ..."),
        ("a \u200b b", "a b"),
        ("  ", ""),
    ],
)
def test_text_is_tidied_and_what_people_write_stays(text, clean):
    assert clean_review(text) == clean
    assert clean_review(clean) == clean


@pytest.mark.parametrize(
    ("asked", "request_"),
    [
        ((["Кафе"], 5, ["кофе", "десерт"]), "категория: Кафе; рейтинг: 5; слова: кофе, десерт"),
        ((["Кафе", "Бар, паб"], 1), "категория: Кафе; Бар, паб; рейтинг: 1"),
        ((["рейтинг: 5"], 1, ["слова: 7"]), "категория: рейтинг: 5; рейтинг: 1; слова: слова: 7"),
    ],
)
def test_request_has_one_form_and_can_be_read_back(asked, request_):
    assert review_request(*asked) == request_
    rubrics, rating, *keywords = asked
    assert parse_review_request(request_) == (tuple(rubrics), rating, tuple(keywords[0]) if keywords else ())


def test_request_tells_all_that_is_wrong():
    with pytest.raises(ValueError) as error:
        review_request([], 6, ["а, б"])
    for told in ("the rubrics must be one name or more", "from 1 to 5, got 6", "a keyword must be a word"):
        assert told in str(error.value)
    for wrong in (
        ([""], 5),
        (["Кафе;Бар"], 5),
        (["Кафе"], 5.0),
        (["Кафе"], True),
        (["Кафе"], 5, ["а\nб"]),
        ("Кафе", 5),
    ):
        with pytest.raises(ValueError):
            review_request(*wrong)


@pytest.mark.parametrize(
    "wrong",
    ["", "Кафе, 5", "категория: Кафе", "категория: Кафе; рейтинг: 7", "категория: Кафе; рейтинг: пять",
     "категория: Кафе; рейтинг: 5; слова: ", "категория: Кафе; рейтинг: 5; слова: кофе,десерт",
     "категория:  Кафе; рейтинг: 5", "категория: Кафе; рейтинг: ٥"],
)  # fmt: skip
def test_what_is_no_request_is_refused(wrong):
    with pytest.raises(ValueError, match="xpected|Cannot ask"):
        parse_review_request(wrong)


def test_ratings_are_counted_all_five():
    assert count_ratings([Review("а", 5, ("Кафе",)), Review("б", 5, ("Кафе",)), Review("в", 2, ("Кафе",))]) == {
        1: 0, 2: 1, 3: 0, 4: 0, 5: 2,
    }  # fmt: skip
