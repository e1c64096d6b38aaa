"""A person's answers: on disk at once, of these samples only, and nothing is lost by a kill or a mistake."""

import json

import pytest

from minipoet.evaluation.labels import QUESTION, read_labels, read_samples, write_samples
from minipoet.evaluation.reviews import GeneratedReview
from minipoet.evaluation.shares import Share, share_difference, summarize

REVIEWS = [GeneratedReview(f"отзыв {n}", 1 + n % 5, ("суп",), f"просьба {n}", "АБ"[n % 2]) for n in range(10)]


@pytest.fixture
def samples(tmp_path):
    write_samples(tmp_path / "samples.jsonl", REVIEWS)
    return read_samples(tmp_path / "samples.jsonl")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


def answered(path, samples, **answers):
    labels = read_labels(path, samples)
    for id, yes in answers.items():
        labels.add(int(id.removeprefix("n")), yes)
    return labels


# Samples


def test_samples_come_back_as_they_were_written(tmp_path):
    chosen = write_samples(tmp_path / "s.jsonl", REVIEWS, 4, seed=1)
    found = read_samples(tmp_path / "s.jsonl").by_id
    assert list(found) == [1, 2, 3, 4]
    for sample, review in zip(found.values(), chosen, strict=True):
        assert (sample.text, sample.request, sample.rating, sample.model) == (
            review.text, review.request, review.rating, review.model,
        )  # fmt: skip
    assert json.loads((tmp_path / "s.jsonl").read_text().split("\n")[0])["keywords"] == ["суп"]


def test_samples_are_drawn_by_the_seed_and_none_twice(tmp_path):
    drawn = [write_samples(tmp_path / "s", REVIEWS, 6, seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({review.text for review in drawn[0]}) == 6
    assert sorted(review.text for review in write_samples(tmp_path / "s", REVIEWS)) == [one.text for one in REVIEWS]


def test_order_of_questions_mixes_the_models_and_comes_again(samples):
    order = samples.shuffled(3)
    assert order == samples.shuffled(3) != samples.shuffled(4)
    assert sorted(sample.id for sample in order) == list(range(1, 11))


def test_samples_by_hand_need_no_more_than_a_text(tmp_path):
    (tmp_path / "s.jsonl").write_text('{"text": "раз"}\n\n{"text": "", "id": "б"}\n')
    found = read_samples(tmp_path / "s.jsonl").by_id
    assert (found[1].text, found["б"].text, found[1].rating) == ("раз", "", None)


def test_all_wrong_lines_of_a_file_of_samples_are_told_at_once(tmp_path):
    lines = ['{"text": "а"}', "{", "[]", '{"id": 1, "text": "а"}', '{"tekst": "а"}', '{"text": 5}',
             '{"text": "а", "rating": 7}', '{"text": "а", "id": 2.5}']  # fmt: skip
    (tmp_path / "s.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError) as error:
        read_samples(tmp_path / "s.jsonl")
    for told in ("line 2: it is no JSON", "line 3: it is no JSON", "line 4: the id 1 comes again",
                 "line 5: it has no text", "line 6: its text is no string", "and 2 more"):  # fmt: skip
        assert told in str(error.value)


@pytest.mark.parametrize(("content", "message"), [(b"", "it is empty"), ("отзыв".encode("cp1251"), "not UTF-8")])
def test_file_that_holds_no_samples_is_told(tmp_path, content, message):
    (tmp_path / "s.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_samples(tmp_path / "s.jsonl")


def test_missing_file_of_samples_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="s.jsonl cannot be read: No such file"):
        read_samples(tmp_path / "s.jsonl")


@pytest.mark.parametrize(
    ("number", "message"), [(11, "11 samples were asked for, but there are 10"), (0, "at least 1")]
)
def test_number_of_samples_is_checked(tmp_path, number, message):
    with pytest.raises(ValueError, match=message):
        write_samples(tmp_path / "s.jsonl", REVIEWS, number)
    assert not (tmp_path / "s.jsonl").exists()


# Answers


def test_answer_is_on_disk_when_add_returns(path, samples):
    labels = read_labels(path, samples)
    assert not path.exists()  # reading writes nothing
    for id, yes in ((3, True), (1, False)):
        labels.add(id, yes)
        assert read_labels(path, samples).given == labels.given
    lines = path.read_text().split("\n")
    assert json.loads(lines[0]) == {"samples": samples.checksum, "question": QUESTION}
    assert lines[1:] == ['{"id": 3, "yes": true}', '{"id": 1, "yes": false}', ""]


def test_later_answer_replaces_the_earlier_one_and_both_stay_in_the_file(path, samples):
    answered(path, samples, n3=True)
    answered(path, samples, n3=False)
    assert read_labels(path, samples).given == {3: False}
    assert path.read_text().count('"id": 3') == 2


def test_labels_of_other_samples_are_refused_and_kept(tmp_path, path, samples):
    answered(path, samples, n1=True)
    before = path.read_bytes()
    write_samples(tmp_path / "other.jsonl", REVIEWS, seed=5)
    with pytest.raises(ValueError, match=r"labels.jsonl has answers about other samples than .*other.jsonl"):
        read_labels(path, read_samples(tmp_path / "other.jsonl"))
    assert path.read_bytes() == before


def test_answers_to_another_question_are_not_mixed(path, samples):
    read_labels(path, samples, "Хорошо?").add(1, True)
    assert read_labels(path, samples).question == "Хорошо?"
    assert read_labels(path, samples, "Хорошо?").given == {1: True}
    with pytest.raises(ValueError, match="has answers to 'Хорошо.', not to 'Правда.'"):
        read_labels(path, samples, "Правда?")


@pytest.mark.parametrize("left", range(1, len('{"id": 2, "yes": true}\n')))
def test_answer_cut_short_at_any_place_is_left_out_and_replaced(path, samples, left):
    answered(path, samples, n1=True)
    whole = path.read_bytes()
    answered(path, samples, n2=True)
    path.write_bytes(path.read_bytes()[: len(whole) + left])
    labels = read_labels(path, samples)
    assert labels.given == {1: True} and labels.cut
    labels.add(5, False)
    assert not labels.cut
    assert path.read_bytes() == whole + b'{"id": 5, "yes": false}\n'
    assert read_labels(path, samples).given == {1: True, 5: False}


def test_nothing_stays_of_a_cut_answer_that_is_longer_than_the_next(tmp_path, path):
    (tmp_path / "s.jsonl").write_text('{"text": "а", "id": "a sample with a long name"}\n{"text": "б", "id": 2}\n')
    samples = read_samples(tmp_path / "s.jsonl")
    read_labels(path, samples).add("a sample with a long name", True)
    path.write_bytes(path.read_bytes()[:-2])
    read_labels(path, samples).add(2, True)
    assert path.read_text().split("\n")[1:] == ['{"id": 2, "yes": true}', ""]


@pytest.mark.parametrize("left", [1, 9, 40, 100])
def test_first_line_cut_short_is_written_again(path, samples, left):
    answered(path, samples, n1=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:left])
    labels = read_labels(path, samples)
    assert labels.given == {} and labels.cut
    labels.add(1, True)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Мои стихи", "ends with what is no answer"),
        ("Мои стихи\n", "is no file of labels"),
        ('{"step": 1}\n', "is no file of labels"),
        ("\n\n", "is no file of labels"),
        ('{"samples": "0000', "ends with what is no answer"),
    ],
)
def test_file_of_another_kind_is_refused_and_kept(path, samples, content, message):
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_labels(path, samples)
    assert path.read_text() == content


def test_wrong_answers_in_the_file_are_told_with_their_lines(path, samples):
    answered(path, samples, n1=True)
    with open(path, "a") as file:
        file.write('{"id": 99, "yes": true}\n{"id": 2, "yes": "да"}\n{"id"\n{"id": true, "yes": true}\n')
    with pytest.raises(ValueError, match=r"line 3: expected .*; line 4: expected .*; line 5: it is no JSON.*; line 6"):
        read_labels(path, samples)


def test_two_programs_do_not_write_over_each_other(path, samples):
    answered(path, samples, n1=True)
    one, other = read_labels(path, samples), read_labels(path, samples)
    one.add(2, True)
    with pytest.raises(OSError, match="another program has changed it; the answers before are kept"):
        other.add(3, True)
    assert read_labels(path, samples).given == {1: True, 2: True}


def test_first_answers_of_two_programs_do_not_write_over_each_other(path, samples):
    one, other = read_labels(path, samples), read_labels(path, samples)
    one.add(2, True)
    with pytest.raises(OSError, match="Could not write"):
        other.add(3, True)
    assert read_labels(path, samples).given == {2: True}


def test_place_that_cannot_be_written_is_told(tmp_path, samples):
    (tmp_path / "file").write_text("")
    labels = read_labels(tmp_path / "file" / "labels.jsonl", samples)
    with pytest.raises(OSError, match="is a file, not a folder"):
        labels.add(1, True)
    assert labels.given == {}


@pytest.mark.parametrize(("id", "yes", "message"), [(99, True, "has no sample 99"), (1, 1, "must be True or False")])
def test_answers_are_checked(path, samples, id, yes, message):
    with pytest.raises(ValueError, match=message):
        read_labels(path, samples).add(id, yes)
    assert not path.exists()


# What they come to


def test_share_is_told_with_its_interval():
    assert str(Share(87, 100)) == "87 of 100 -> 0.79 to 0.92"


def test_summary_counts_by_rating_and_model(path, samples):
    by_text = {sample.text: id for id, sample in samples.by_id.items()}
    labels = read_labels(path, samples)
    for n, yes in ((0, True), (1, False), (2, True), (5, False), (7, True)):  # ratings 1 2 3 1 3, models А Б А Б Б
        labels.add(by_text[f"отзыв {n}"], yes)
    found = summarize(labels)
    assert (found.all, found.samples) == ((3, 5), 10)
    assert found.by_rating == {1: (1, 2), 2: (0, 1), 3: (2, 2)}
    assert found.by_model == {"А": (2, 2), "Б": (1, 3)}


def test_nothing_judged_is_told(path, samples):
    with pytest.raises(ValueError, match="Nothing is judged yet in .*labels.jsonl"):
        summarize(read_labels(path, samples))


def test_difference_of_two_shares_as_in_newcombe_1998():
    # His table II, method 10: 56/70 less 48/80, 9/10 less 3/10, 10/10 less 0/10
    for counts, expected in {
        (56, 70, 48, 80): (0.2, 0.0524, 0.3339),
        (9, 10, 3, 10): (0.6, 0.1705, 0.8090),
        (10, 10, 0, 10): (1.0, 0.6075, 1.0),
    }.items():
        assert share_difference(*counts) == pytest.approx(expected, abs=5e-5)


def test_difference_turned_round_is_its_negative():
    value, low, high = share_difference(30, 40, 12, 50)
    assert share_difference(12, 50, 30, 40) == pytest.approx((-value, -high, -low))
