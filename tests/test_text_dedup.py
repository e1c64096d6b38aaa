"""Duplicates: what is one, which of two is kept, and that the order of the poems does not matter."""

import hashlib
import json
import random

import numpy as np

from minipoet.text.corpora import read_corpus
from minipoet.text.dedup import COMMON, Duplicate, Marks, drop_duplicates, find_leaks, line_keys, word_runs
from minipoet.text.poems import Poem

SNOW = """Над полем тихий снег летит с утра,
И старый сад стоит, как белый дом,
И нам с тобой давно домой пора,
Но мы ещё по берегу идём."""
RAIN = """Стучит по крыше мелкий летний дождь,
А ты меня из города не ждёшь."""


def test_lines_are_compared_by_their_words() -> None:
    assert line_keys("Ещё — снег!\n* * *\n«еще, Снег»") == {"еще снег"}


def test_word_runs_cross_the_ends_of_lines() -> None:
    assert word_runs("один два три\nчетыре пять\nшесть семь") == {
        "один два три четыре пять шесть",
        "два три четыре пять шесть семь",
    }


def test_copy_in_other_print_is_dropped_and_told() -> None:
    copy = Poem(SNOW.upper().replace("Ё", "Е").replace(",", " —"))
    kept, (duplicate,) = drop_duplicates([copy, Poem(RAIN), Poem(SNOW, title="Снег")])
    assert kept == [Poem(RAIN), Poem(SNOW, title="Снег")]
    assert (duplicate.dropped, duplicate.kept, duplicate.share) == (copy, Poem(SNOW, title="Снег"), 1.0)


def test_of_two_variants_the_longer_is_kept() -> None:
    short = Poem("\n".join([*SNOW.split("\n")[:2], "А дальше всё совсем иначе было,", "И я тебя, наверное, простила."]))
    long = Poem(f"{SNOW}\n\n{RAIN}")
    kept, (duplicate,) = drop_duplicates([short, long])
    assert kept == [long]
    assert duplicate.share == 0.5


def test_lines_divided_otherwise_are_recognised() -> None:
    ladder = Poem(SNOW.replace(" ", "\n"))
    kept, dropped = drop_duplicates([ladder, Poem(SNOW + "\nИ снег идёт.")])
    assert len(kept) == 1
    assert dropped[0].dropped == ladder


def test_one_shared_line_of_a_couplet_is_a_quotation() -> None:
    other = Poem(RAIN.split("\n")[0] + "\nИ яблоки роняет за окном.")
    assert drop_duplicates([Poem(RAIN), other])[1] == []


def test_short_common_lines_make_no_duplicate() -> None:
    one, two = Poem("Ах, снег!\nАх, да!\nКто в белом поле спит?"), Poem("Ах, снег!\nАх, да!\nГде мой весёлый дом?")
    assert drop_duplicates([one, two])[1] == []


def test_formula_in_many_poems_makes_no_duplicate() -> None:
    formula = "И долго, долго снег идёт\nВ краю далёком и родном"
    poems = [Poem(f"{formula}\nсвоё{number} слово{number}\nиное{number} дело{number}") for number in range(COMMON + 1)]
    assert drop_duplicates(poems)[1] == []
    assert len(drop_duplicates(poems[:COMMON])[1]) == COMMON - 1


def test_result_does_not_depend_on_the_order() -> None:
    words = [f"слово{number}" for number in range(30)]
    generator = random.Random(1)
    lines = [" ".join(generator.sample(words, 5)) for _ in range(40)]
    poems = [Poem("\n".join(generator.sample(lines, 5)), title=str(number)) for number in range(60)]
    kept, dropped = drop_duplicates(poems)
    assert kept and dropped
    for _ in range(5):
        generator.shuffle(poems)
        again, dropped_again = drop_duplicates(poems)
        assert set(again) == set(kept)
        assert set(dropped_again) == set(dropped)


def test_nothing_is_dropped_for_a_dropped_poem() -> None:
    lines = [f"строка{number} о том что было{number} зимой" for number in range(12)]
    chain = [Poem("\n".join(lines[start : start + 6])) for start in (0, 2, 4, 6)]
    kept, dropped = drop_duplicates(chain)
    assert {duplicate.kept for duplicate in dropped} <= set(kept)
    assert len(kept) + len(dropped) == len(chain)


def reprints() -> list[Poem]:
    """The embedded corpus and five reprints of each poem: capitals, other lines, a part, shuffled, half another."""
    poems = read_corpus("embedded")
    generator, found = random.Random(7), list(poems)
    for poem in poems:
        lines = poem.text.split("\n")
        middle = len(lines) // 2
        found += [
            Poem(text, title=f"{poem.title} {number}")
            for number, text in enumerate(
                [
                    poem.text.upper().replace("Ё", "Е"),
                    poem.text.replace(", ", ",\n"),
                    "\n".join(lines[: max(2, generator.randrange(len(lines)))]),
                    "\n".join(generator.sample(lines, len(lines))),
                    "\n".join([*lines[:middle], *generator.choice(poems).text.split("\n")[:middle]]),
                ]
            )
        ]
    return found


def test_result_is_what_it_was_when_lines_and_runs_were_sets_of_strings() -> None:
    poems = reprints()
    places = {poem: number for number, poem in enumerate(poems)}
    kept, dropped = drop_duplicates(poems)
    told = [(places[d.dropped], places[d.kept], round(d.share, 12)) for d in dropped]
    assert (len(poems), len(kept), len(dropped)) == (672, 114, 558)
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16] == "622afd5487a9e682"


def test_poem_that_was_reposted_many_times_is_no_formula() -> None:
    lines = [f"строка{number} о том что было{number} зимой" for number in range(12)]
    reposts = [Poem("\n".join([*lines[: 10 + number % 3], f"приписка{number}"])) for number in range(5 * COMMON)]
    kept, dropped = drop_duplicates(reposts)
    assert len(kept) == 1
    assert min(duplicate.share for duplicate in dropped) > 0.8


def test_marks_count_what_line_keys_and_word_runs_have() -> None:
    texts = [SNOW, SNOW.upper() + "\nИ всё.", RAIN + "\n" + SNOW.replace("\n", " / "), "", "снег", "* * *"]
    marks = Marks(texts)
    for one, a in enumerate(texts):
        for numbers, keys in ((marks.lines, line_keys), (marks.runs, word_runs)):
            assert len(numbers[one]) == len(keys(a))
            for other, b in enumerate(texts):
                assert len(np.intersect1d(numbers[one], numbers[other])) == len(keys(a) & keys(b))


def test_leaks_are_held_out_poems_with_their_nearest_training_poem() -> None:
    half = "\n".join([*SNOW.split("\n")[:2], "А дальше всё совсем иначе было,", "И я тебя, наверное, простила."])
    train = [Poem(RAIN), Poem(half), Poem(SNOW, title="Снег")]
    copy, other = Poem(SNOW.upper()), Poem("Иные строки о другом,\nСовсем другие — о морском.")
    assert find_leaks(train, [other, copy]) == [Duplicate(copy, train[2], 1.0)]
    assert find_leaks(train[:2], [other, copy]) == [Duplicate(copy, train[1], 0.5)]
    assert find_leaks(train[:1], [other, copy]) == []
