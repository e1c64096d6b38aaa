"""The mixture: shares are kept in every phase, each source is read in its own order, and nothing is left to chance."""

import pytest
import torch
from training_support import numbered_texts

from minipoet.training import Batches, Mixture


def sources() -> dict[str, Batches]:
    """Verse has ids below 10,000; prose has larger ones."""
    verse = numbered_texts([5] * 8)
    return {"verse": Batches(verse, 4, 2), "prose": Batches([[i + 10_000 for i in text] for text in verse], 4, 2)}


def test_turns_of_a_quarter_and_three_quarters_are_the_hand_worked_ones():
    mixture = Mixture(sources(), [(8, {"verse": 0.25, "prose": 0.75})])
    kinds = ["prose" if mixture.batch(step).ids.max() >= 10_000 else "verse" for step in range(8)]
    assert kinds == ["prose", "verse", "prose", "prose"] * 2  # owed: .75 prose; .5 each; 1.25 prose; 1 prose
    assert mixture.taken() == {"verse": 2, "prose": 6}


def test_each_source_is_read_in_its_own_order():
    alone, mixture = sources(), Mixture(sources(), [(4, {"verse": 1, "prose": 1}), (12, {"verse": 1})])
    taken = {"verse": 0, "prose": 0}
    for step in range(12):
        batch = mixture.batch(step)
        name = "prose" if batch.ids.max() >= 10_000 else "verse"
        assert torch.equal(batch.ids, alone[name].batch(taken[name]).ids)
        taken[name] += 1
    assert taken == mixture.taken() == {"verse": 10, "prose": 2}


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ValueError, match=r"later.*unknown sources \['drama'\].*not be negative") as error:
        Mixture(sources(), [(5, {"verse": 1}), (5, {"drama": 1}), (6, {"verse": 2, "prose": -1})])
    assert "all zero" in str(error.value)


@pytest.mark.parametrize("phases", [[], [(3, {})], [(3, {"verse": 0})], [(3, {"verse": float("nan")})]])
def test_phases_of_nothing_are_refused(phases):
    with pytest.raises(ValueError, match="Mixture: "):
        Mixture(sources(), phases)


def test_there_is_no_batch_past_the_last_phase():
    with pytest.raises(ValueError, match="3 batches; there is no batch 3"):
        Mixture(sources(), [(3, {"verse": 1})]).batch(3)
