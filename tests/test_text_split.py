"""The split: nothing on both sides, the asked share, and little change when a poem is added."""

import random

import pytest

from minipoet.text.dedup import drop_duplicates, line_keys, word_runs
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem
from minipoet.text.split import check_apart, group_by_work, split_by_poem, split_by_work


def verse(number: int, lines: int = 8) -> str:
    """Invented lines that no other number has."""
    return "\n".join(f"слово{number}в{line} и снег{number} над домом{line}" for line in range(lines))


def corpus(size: int) -> list[Poem]:
    """Poems of 4 to 20 lines."""
    generator = random.Random(0)
    return [Poem(verse(number, generator.randint(4, 20)), title=str(number)) for number in range(size)]


def characters(poems: list[Poem]) -> int:
    """Characters of all texts."""
    return sum(len(poem.text) for poem in poems)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
def test_validation_has_the_asked_share_of_characters(share: float) -> None:
    poems = corpus(300)
    for seed in range(5):
        split = split_by_work(poems, share, seed)
        assert characters(split.validation) / characters(poems) == pytest.approx(share, abs=0.01)


def test_each_poem_is_on_one_side_in_the_given_order() -> None:
    poems = corpus(50)
    split = split_by_work(poems, 0.2)
    assert sorted(split.train + split.validation, key=poems.index) == poems
    assert split.train == sorted(split.train, key=poems.index)


def test_split_of_a_seed_is_the_same_in_every_process() -> None:
    split = split_by_work(corpus(30), 0.2, seed=3)
    assert [poem.title for poem in split.validation] == ["9", "15", "16", "22", "25", "26"]


def test_order_of_the_poems_does_not_matter() -> None:
    poems = corpus(100)
    expected = set(split_by_work(poems, 0.1, seed=1).validation)
    random.Random(2).shuffle(poems)
    assert set(split_by_work(poems, 0.1, seed=1).validation) == expected


def test_seeds_differ() -> None:
    poems = corpus(100)
    assert split_by_work(poems, 0.1, seed=1).validation != split_by_work(poems, 0.1, seed=2).validation


def test_added_poem_moves_few_others() -> None:
    poems = corpus(200)
    before = set(split_by_work(poems, 0.1).validation)
    for number in range(1000, 1020):
        after = set(split_by_work([*poems, Poem(verse(number))], 0.1).validation)
        assert len((before ^ after) & set(poems)) <= 3


def test_parts_of_a_work_stay_together() -> None:
    parts = [Poem(verse(1000 + part, 3), title=f"Лесная быль. Глава {part}", author="Снегов") for part in range(1, 5)]
    for seed in range(20):
        split = split_by_work([*corpus(40), *parts], 0.3, seed)
        assert len(set(parts) & set(split.validation)) in (0, 4)


def test_poems_with_one_title_stay_apart() -> None:
    poems = [Poem(verse(number), title="К ***", author="Снегов") for number in range(30)]
    assert len(group_by_work(poems)) == 30


def test_variants_stay_together_also_through_others() -> None:
    shared = ["Над полем тихий снег летит", "И старый сад стоит, как дом"]
    chain = [
        Poem(f"{verse(1)}\n{shared[0]}"),
        Poem(f"{shared[0]}!\n{verse(2)}\n{shared[1]}"),
        Poem(f"{shared[1].upper()}\n{verse(3)}"),
    ]
    assert sorted(map(len, group_by_work([*chain, *corpus(1)]).values())) == [1, 3]


def test_group_is_named_by_its_largest_member() -> None:
    large, small = Poem(verse(1, 20)), Poem("\n".join(verse(1, 20).split("\n")[:5]))
    assert list(group_by_work([large])) == list(group_by_work([small, large]))


def test_no_line_and_no_run_of_words_is_on_both_sides() -> None:
    generator = random.Random(5)
    lines = [" ".join(f"слово{generator.randrange(400)}" for _ in range(5)) for _ in range(1500)]
    poems = [Poem("\n".join(generator.sample(lines, 6))) for _ in range(150)]
    split = split_by_work(poems, 0.1)
    for keys in (line_keys, word_runs):
        train, validation = (
            set().union(*(keys(poem.text) for poem in side)) for side in (split.train, split.validation)
        )
        assert not {key for key in train & validation if key.count(" ") >= 3}


def test_huge_work_goes_to_training() -> None:
    huge = Poem(verse(5000, 400))
    for seed in range(20):
        assert huge in split_by_work([*corpus(100), huge], 0.2, seed).train


def test_small_corpus_is_divided_too() -> None:
    for seed in range(10):
        split = split_by_work([Poem(verse(number)) for number in range(6)], 0.2, seed)
        assert len(split.validation) == 1


@pytest.mark.parametrize("share", [0, 1, -0.1, 10])
def test_share_outside_of_0_and_1_is_an_error(share: float) -> None:
    with pytest.raises(CorpusError, match="expected 0 < share < 1"):
        split_by_work(corpus(10), share)


def test_too_small_a_split_says_what_to_ask_for() -> None:
    poems = [Poem(verse(number)) for number in range(3)]
    with pytest.raises(CorpusError, match=r"cannot hold out 10% of 3 poems.*share near 0\.3\d or more"):
        split_by_work(poems, 0.1)
    assert len(split_by_work(poems, 0.35).validation) == 1


def test_split_that_leaves_nothing_to_train_on_says_so() -> None:
    with pytest.raises(CorpusError, match=r"cannot hold out 90% of 2 poems: nothing is left to train on"):
        split_by_work([Poem(verse(1)), Poem(verse(2))], 0.9)


@pytest.mark.parametrize("poems", [[], corpus(1), [Poem(verse(1)), Poem(verse(1).upper())]])
def test_one_group_cannot_be_divided(poems: list[Poem]) -> None:
    with pytest.raises(CorpusError, match="bring at least two different poems"):
        split_by_work(poems)


def test_split_by_poem_holds_out_about_the_asked_share_of_poems() -> None:
    poems = [Poem(verse(number, 2)) for number in range(4000)]
    for share in (0.1, 0.5):
        for seed in range(3):
            found = len(split_by_poem(poems, share, seed).validation) / 4000
            assert found == pytest.approx(share, abs=3 * (share * (1 - share) / 4000) ** 0.5)


def test_split_by_poem_never_moves_a_poem() -> None:
    poems = corpus(300)
    before = split_by_poem(poems, 0.2, seed=1)
    for part in (poems[:100], poems[::-1], [*poems, *(Poem(verse(number)) for number in range(900, 1000))]):
        after = split_by_poem(part, 0.2, seed=1)
        assert set(after.train) & set(poems) <= set(before.train)
        assert set(after.validation) & set(poems) <= set(before.validation)


def test_split_by_poem_is_the_same_in_every_process() -> None:
    split = split_by_poem(corpus(30), 0.2, seed=3)
    assert [poem.title for poem in split.validation] == ["3", "6", "8", "11", "13", "21", "23", "24"]


def test_split_by_poem_keeps_copies_on_one_side_and_the_order() -> None:
    poems = [copy for poem in corpus(40) for copy in (poem, Poem(poem.text.upper().replace(" ", ", ")))]
    split = split_by_poem(poems, 0.3)
    for side in (split.train, split.validation):
        assert len(side) % 2 == 0 and side == sorted(side, key=poems.index)


def test_split_by_poem_of_other_seeds_differs() -> None:
    assert split_by_poem(corpus(99), 0.5, 1).train != split_by_poem(corpus(99), 0.5, 2).train


@pytest.mark.parametrize("share", [0, 1, True, "0.1"])
def test_split_by_poem_refuses_what_is_no_share(share: float) -> None:
    with pytest.raises(CorpusError, match="expected 0 < share < 1"):
        split_by_poem(corpus(10), share)


def test_split_by_poem_with_an_empty_side_says_what_to_do() -> None:
    with pytest.raises(
        CorpusError, match="1 poem.* into 90% and 10%: one side would be empty; bring more, or use split_"
    ):
        split_by_poem(corpus(1))


def test_poems_are_apart_after_the_road_of_a_large_corpus() -> None:
    poems = corpus(200)
    reposts = [Poem("\n".join([*verse(7, 20).split("\n")[: 16 + n % 4], f"приписка{n}"])) for n in range(30)]
    kept = drop_duplicates([*poems, *reposts, *(Poem(poem.text.upper()) for poem in poems[:50])])[0]
    split = split_by_poem(kept)
    check_apart(split.train, split.validation)


def test_overlap_is_refused_with_how_many_and_the_first() -> None:
    poems = [Poem(poem.text, poem.title, source=f"p.jsonl:{n}") for n, poem in enumerate(corpus(20))]
    variant = Poem(verse(3, 20).replace("\n", "\n\n").upper(), source="b.jsonl:4")
    copy = Poem(poems[5].text, "Снег")
    with pytest.raises(CorpusError) as error:
        check_apart(poems, [Poem(verse(999)), variant, copy])
    message = str(error.value)
    assert message.startswith("2 of 3 held-out poems are among the 20 training poems, or nearly so; the first: ")
    assert "(b.jsonl:4) and «3» (p.jsonl:3) share 100% of their lines or word runs" in message
    check_apart(poems, [Poem(verse(999))])


def test_overlap_by_many_reposts_is_refused_too() -> None:
    lines = verse(1, 20).split("\n")
    reposts = [Poem("\n".join([*lines[number % 3 :], f"приписка{number}"])) for number in range(30)]
    with pytest.raises(CorpusError, match="15 of 15 held-out poems"):
        check_apart(reposts[:15], reposts[15:])


def test_quotation_is_no_overlap() -> None:
    shared = verse(1, 2)
    check_apart([Poem(f"{verse(2)}\n{shared}")], [Poem(f"{shared}\n{verse(3)}")])
