"""Dividing a corpus into training and validation so that nothing of the one is in the other.

Three ways to leak, and what is done:
    lines of a poem on both sides      whole poems are divided, never lines
    chapters of a work on both sides   parts of a work stay together (`minipoet.text.works`)
    variants of a poem on both sides   poems that share one line of four words, or six words in a row, stay together,
                                       even if it is a quotation: that costs little, and "nothing shared" is simply true

What must stay together is a group (found by union-find). Each group has a place, the hash of the seed and of its
name; in the order of these hashes groups go to validation until the wanted share of *characters* is reached. The
order of the poems has no part in it, and a new poem moves only the few groups that stand where the counting ends, so
that results before and after it can be compared.

Chapter: docs/text.md. Union-find: Tarjan, "Efficiency of a Good But Not Linear Set Union Algorithm", 1975.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from minipoet.checks import each, is_number, shown
from minipoet.text.dedup import COMMON, Marks, find_leaks, word_key
from minipoet.text.errors import CorpusError
from minipoet.text.poems import Poem
from minipoet.text.works import works_of

LARGE = 0.1  # a group with more than this share of the wanted validation characters goes to training


@dataclass(frozen=True)
class Split:
    """Two corpora with no poem, work, long line or run of words in common, each in the order of the input."""

    train: list[Poem]
    validation: list[Poem]


def split_by_work(poems: Sequence[Poem], validation: float = 0.1, seed: int = 0) -> Split:
    """Divides poems so that about `validation` of the characters are held out, whole works at a time.

    A group goes to training if it is larger than a tenth of the wanted validation side (or than two average groups, in
    a small corpus): one long poem shall not be all that is measured. The others are taken in the order of their hash
    while that brings the held-out characters nearer to the wanted number.

    Raises:
        CorpusError: `validation` is not between 0 and 1, or one side would be empty.
    """
    if not is_number(validation) or not 0 < validation < 1:
        raise CorpusError(
            f"validation is the share of characters to hold out: expected 0 < share < 1, got {shown(validation)}"
        )
    poems = list(each(poems, Poem, "The poems", "Poem(text)"))
    groups = group_by_work(poems)
    sizes = {name: sum(len(poems[number].text) for number in members) for name, members in groups.items()}
    wanted = validation * sum(sizes.values())
    largest = max(LARGE * wanted, 2 * median(sizes.values())) if sizes else 0
    held_out: set[int] = set()
    taken = 0
    for name in sorted(groups, key=lambda name: _hash(seed, name)):
        if sizes[name] <= largest and taken + sizes[name] / 2 <= wanted:
            held_out.update(groups[name])
            taken += sizes[name]
    split = Split(
        train=[poem for number, poem in enumerate(poems) if number not in held_out],
        validation=[poem for number, poem in enumerate(poems) if number in held_out],
    )
    if not split.train or not split.validation:
        raise CorpusError(_too_small(poems, list(sizes.values()), validation, wanted))
    return split


def split_by_poem(poems: Sequence[Poem], validation: float = 0.1, seed: int = 0) -> Split:
    """Divides poems one by one: each goes where the hash of the seed and of its words sends it.

    For large collections of short, separate poems. A poem's side depends on nothing but its words, so it never changes
    when others are added, and copies are on one side; the held-out share comes near `validation` by the law of large
    numbers only (of N poems, within ±2·√(0.09/N) of 0.1). *Variants* of a poem may be on both sides: leave them out
    before (`drop_duplicates`), and let `check_apart` look.

    Raises:
        CorpusError: `validation` is not between 0 and 1, or one side would be empty.
    """
    if not is_number(validation) or not 0 < validation < 1:
        raise CorpusError(
            f"validation is the share of poems to hold out: expected 0 < share < 1, got {shown(validation)}"
        )
    split = Split([], [])
    for poem in each(poems, Poem, "The poems", "Poem(text)"):
        place = int.from_bytes(_hash(seed, word_key(poem.text) or poem.text)[:8], "big") / 2**64
        (split.validation if place < validation else split.train).append(poem)
    if not split.train or not split.validation:
        raise CorpusError(
            f"cannot divide {len(split.train) + len(split.validation)} poem(s) by chance into "
            f"{1 - validation:.0%} and {validation:.0%}: one side would be empty; bring more, or use split_by_work"
        )
    return split


def check_apart(train: Sequence[Poem], held_out: Sequence[Poem]) -> None:
    """Raises CorpusError if a held-out poem, or a variant of it, is among the poems to learn from.

    Variants are what `drop_duplicates` says they are. The message tells how many there are, and the first.
    """
    train = list(each(train, Poem, "The training poems", "Poem(text)"))
    held_out = list(each(held_out, Poem, "The held-out poems", "Poem(text)"))
    leaks = find_leaks(train, held_out)
    if leaks:
        first = leaks[0]
        raise CorpusError(
            f"{len(leaks)} of {len(held_out)} held-out poems are among the {len(train)} training poems, or nearly so; "
            f"the first: {_name(first.dropped)} and {_name(first.kept)} share {first.share:.0%} of their lines or word "
            "runs. A figure on them would measure memory: drop_duplicates of both sides together, then divide again"
        )


def _name(poem: Poem) -> str:
    """A poem in a message: its title or first line, and where it was read."""
    line = next((line for line in poem.text.split("\n") if line), "")
    return f"«{poem.title or line[:40]}»" + (f" ({poem.source})" if poem.source else "")


def group_by_work(poems: Sequence[Poem]) -> dict[str, list[int]]:
    """The numbers of the poems that must stay together, by the name of the group.

    Poems belong together if they are parts of one work, or have a mark (see `minipoet.text.dedup`) in common, also
    through others. A mark that is common to many works is a formula and joins nothing. The name is that of the largest
    work (or poem) in the group, so that a small variant, added later, does not rename it.
    """
    units: defaultdict[str, list[int]] = defaultdict(list)
    for number, (author, work) in enumerate(works_of(poems)):
        units[f"work {author}: {work}" if work else f"poem {word_key(poems[number].text)}"].append(number)
    names = sorted(units)
    texts = ["\n".join(poems[number].text for number in units[name]) for name in names]

    parent = list(range(len(names)))
    shared, sizes = Marks(texts).groups()
    first: dict[int, int] = {}  # mark -> the first that has it
    for number, its_marks in enumerate(shared):
        for mark in its_marks:
            if sizes[mark] <= COMMON:
                parent[_root(parent, number)] = _root(parent, first.setdefault(mark, number))

    joined: defaultdict[int, list[str]] = defaultdict(list)
    for number, name in enumerate(names):
        joined[_root(parent, number)].append(name)
    groups = {}
    for members in joined.values():
        largest = min(members, key=lambda name: (-sum(len(poems[number].text) for number in units[name]), name))
        groups[largest] = sorted(number for name in members for number in units[name])
    return groups


def _root(parent: list[int], node: int) -> int:
    """The representative of a node's set; halves the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _hash(seed: int, name: str) -> bytes:
    """A place in the order of groups. Not `hash()`: that one changes from process to process."""
    return hashlib.sha256(f"{seed} {name}".encode()).digest()


def _too_small(poems: Sequence[Poem], sizes: list[int], validation: float, wanted: float) -> str:
    """What to tell when a side is empty."""
    total, groups = sum(sizes), f"{len(sizes)} groups of poems that belong together"
    if len(sizes) < 2:
        return (
            f"cannot divide {len(poems)} poem(s) into training and validation: they make {len(sizes)} group(s) of "
            "poems that belong together (parts of one work, or lines in common); bring at least two different poems"
        )
    if 2 * wanted > total:
        return (
            f"cannot hold out {validation:.0%} of {len(poems)} poems: nothing is left to train on, since the {groups} "
            f"have up to {max(sizes)} of {total} characters; ask for a smaller validation share, or bring more poems"
        )
    return (
        f"cannot hold out {validation:.0%} of {len(poems)} poems: that is {wanted:.0f} of {total} characters, and the "
        f"{groups} have {min(sizes)} to {max(sizes)}; ask for a validation share near {min(sizes) / total:.2f} or more "
        "(up to 0.5), or bring more poems"
    )
