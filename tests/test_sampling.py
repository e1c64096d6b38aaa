"""The filters on hand-worked distributions and against recorded outputs of transformers; the draw; the settings."""

import math

import pytest
import torch
from reference_data import load_json, load_tensors

from minipoet.generation import SamplingSettings, StopStrings, filter_logits, poem_seed, sampling
from minipoet.generation.noise import gumbel, gumbel_noise, splitmix, step_keys
from minipoet.generation.sampling import (
    draw,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    scale_temperature,
    seen_ids,
)

OFF = {"temperature": 1.0, "top_p": 1.0}


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits]


def test_top_k_keeps_all_that_equal_the_kth():
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    assert kept(keep_top_k(logits, 2)) == [[0, 2, 3], [0, 1]]
    assert kept(keep_top_k(logits, 99)) == [[0, 1, 2, 3, 4]] * 2


def test_top_p_keeps_the_token_that_crosses_the_threshold():
    logits = logits_of(0.15, 0.5, 0.05, 0.3)
    assert kept(keep_top_p(logits, 0.01)) == [[1]]
    assert kept(keep_top_p(logits, 0.49)) == [[1]]
    assert kept(keep_top_p(logits, 0.51)) == [[1, 3]]
    assert kept(keep_top_p(logits, 0.79)) == [[1, 3]]
    assert kept(keep_top_p(logits, 0.81)) == [[0, 1, 3]]
    assert kept(keep_top_p(logits, 0.999)) == [[0, 1, 2, 3]]


def test_top_p_keeps_the_lower_of_equal_ids():
    assert kept(keep_top_p(logits_of(0.1, 0.2, 0.2, 0.3, 0.2), 0.6)) == [[1, 2, 3]]
    assert kept(keep_top_p(torch.zeros(1, 1000), 0.5005)) == [list(range(501))]


def test_top_p_looks_at_each_row_by_itself():
    logits = torch.stack([logits_of(0.7, 0.2, 0.1)[0], logits_of(0.3, 0.3, 0.4)[0]])
    assert kept(keep_top_p(logits, 0.65)) == [[0], [0, 2]]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99, 0.99999])
def test_top_p_from_the_head_of_the_distribution_equals_top_p_from_all_of_it(p, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 300, generator=generator) * torch.tensor([[0.1], [0.5], [1.0], [2.0], [4.0], [8.0]])
    monkeypatch.setattr(sampling, "HEADS", (4, 50))
    from_head = keep_top_p(logits, p)
    monkeypatch.setattr(sampling, "HEADS", ())
    assert torch.equal(from_head, keep_top_p(logits, p))


def test_min_p_is_a_share_of_the_likeliest_probability():
    logits = logits_of(0.5, 0.26, 0.15, 0.09)
    assert kept(keep_min_p(logits, 0.1)) == [[0, 1, 2, 3]]
    assert kept(keep_min_p(logits, 0.2)) == [[0, 1, 2]]
    assert kept(keep_min_p(logits, 0.5)) == [[0, 1]]
    assert kept(keep_min_p(torch.tensor([[2.0, 1.0, 2.0]]), 1.0)) == [[0, 2]]


def test_temperature_divides_the_logits():
    assert torch.equal(scale_temperature(torch.tensor([[1.0, -2.0]]), 0.5), torch.tensor([[2.0, -4.0]]))


def test_the_penalty_counts_an_id_once_and_padding_not_at_all():
    ids = torch.tensor([[0, 0, 3, 3, 1], [2, 2, 2, 2, 2]])
    segments = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    seen = seen_ids(ids, segments, vocab_size=4)
    assert kept(torch.where(seen, 0.0, float("inf"))) == [[1, 3], [2]]
    logits = torch.tensor([[4.0, 4.0, 4.0, -4.0], [1.0, 1.0, 0.0, 1.0]])
    penalised = penalise_repetition(logits, seen, 2.0)
    assert torch.equal(penalised, torch.tensor([[4.0, 2.0, 4.0, -8.0], [1.0, 1.0, 0.0, 1.0]]))


def test_an_id_that_is_padding_and_text_has_been_seen():
    assert seen_ids(torch.tensor([[0, 0, 5]]), torch.tensor([[0, 1, 1]]), 6).tolist() == [[True] + [False] * 4 + [True]]


def test_top_p_acts_on_what_top_k_has_left():
    # Of 0.4 + 0.3 + 0.2 + 0.1 the two likeliest are 0.57 and 0.43 of what is left.
    logits = logits_of(0.4, 0.3, 0.2, 0.1)
    assert kept(filter_logits(logits, SamplingSettings(temperature=1, top_k=2, top_p=0.5))) == [[0]]
    assert kept(filter_logits(logits, SamplingSettings(temperature=1, top_p=0.5))) == [[0, 1]]


@pytest.mark.parametrize("case", load_json("decoding/processors")["cases"], ids=lambda case: str(case["settings"]))
def test_filters_equal_the_recorded_ones_of_transformers(case):
    recorded = load_tensors("decoding/processors")
    scores, expected = recorded["scores"], recorded[case["tensor"]]
    settings = SamplingSettings(**(OFF | case["settings"]))
    ours = filter_logits(scores, settings, seen_ids(recorded["history"], None, scores.shape[1]))
    if case["cuts_through_a_tie"]:  # then it is open which of the equal ones stay, but not how many
        ours, expected = ours.sort().values, expected.sort().values
    assert torch.equal(ours.isfinite(), expected.isfinite())
    assert torch.allclose(ours, expected, rtol=1e-6)


def test_splitmix_gives_the_published_numbers():
    # The first outputs of SplitMix64 for these seeds, as in many implementations and on rosettacode.org.
    ours = splitmix(torch.tensor([[0], [1234567]]), torch.arange(3)).tolist()
    assert [number % 2**64 for number in ours[0]] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [number % 2**64 for number in ours[1]] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_gumbel_noise_is_finite_at_both_ends_and_right_in_the_middle():
    # 64 bits as a fraction: 0, nearly 1 (all bits set), and 1 - 1/e, where E is 1 and its logarithm 0.
    noise = gumbel(torch.tensor([0, -1, int((1 - math.exp(-1)) * 2**64) - 2**64])).tolist()
    assert noise == pytest.approx([math.log(2) * 54, -math.log(math.log(2) * 24), 0.0], abs=1e-5)


def test_draw_takes_the_largest_sum_of_logit_and_noise():
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    key = torch.tensor([99])
    noise = gumbel_noise(key[:, None], torch.arange(3))
    assert draw(logits, key).tolist() == (logits + noise).argmax(-1).tolist()
    assert draw(logits + 100 * torch.eye(3), key.expand(3)).tolist() == [0, 1, 2]
    assert draw(logits - 100 * noise, key).tolist() == noise.argmin(-1).tolist()


def test_draws_are_as_frequent_as_their_probabilities():
    n, probabilities = 40_000, torch.tensor([0.6, 0.25, 0.1, 0.04, 0.01])
    for keys in (step_keys([5], n)[0], step_keys(range(n), 1)[:, 0]):  # the steps of one poem; the poems of n seeds
        counts = torch.bincount(draw(probabilities.log().expand(n, 5), keys), minlength=5)
        error = (probabilities * (1 - probabilities) / n).sqrt()
        assert ((counts / n - probabilities).abs() < 4 * error).all()


def test_draws_of_two_steps_are_independent():
    n = 20_000
    keys = step_keys(range(n), 2)
    first, second = (draw(torch.zeros(n, 4), keys[:, step]) for step in (0, 1))
    counts = torch.bincount(4 * first + second, minlength=16)
    assert ((counts / n - 1 / 16).abs() < 4 * math.sqrt(15 / 256 / n)).all()


def test_draw_never_takes_a_removed_id():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2000, 50, generator=generator) * 5
    removed = torch.rand(2000, 50, generator=generator) < 0.9
    removed[:, 20] = False
    ids = draw(logits.masked_fill(removed, float("-inf")), step_keys([7], 2000)[0])
    assert not removed[torch.arange(2000), ids].any()
    assert len(ids.unique()) > 40


@pytest.mark.parametrize("keys", [None, torch.arange(4)])
def test_logits_that_are_not_finite_give_no_id(keys):
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor([[-inf, 1.0, -inf], [0.0, nan, 1.0], [0.0, inf, 1.0], [-inf, -inf, -inf]])
    assert draw(logits, keys).tolist() == [1, -1, -1, -1]


def test_the_luck_of_a_poem_depends_on_its_seed_only():
    alone, among = step_keys([7], 10), step_keys([3, 7, 7, 2**64 - 1], 30)
    assert torch.equal(among[1, :10], alone[0])
    assert torch.equal(among[1], among[2])
    assert len(among[[0, 1, 3]].unique()) == 90


def test_no_two_poems_have_one_seed():
    seeds = {poem_seed(seed, i, j) for seed in range(20) for i in range(60) for j in range(60)}
    assert len(seeds) == 20 * 60 * 60
    assert poem_seed(5) == 5
    assert all(0 <= seed < 2**64 for seed in seeds)


WRONG = [
    ("max_new_tokens", 0),
    ("max_new_tokens", 1.5),
    ("max_new_tokens", True),
    ("temperature", -0.1),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("temperature", 1e-9),
    ("temperature", "hot"),
    ("top_p", 0),
    ("top_p", 1.01),
    ("top_p", float("nan")),
    ("top_k", -1),
    ("top_k", 2.0),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("repetition_penalty", 0),
    ("repetition_penalty", float("nan")),
    ("stop", ""),
    ("stop", ["a", ""]),
    ("stop", None),
    ("stop", [1]),
    ("seed", -1),
    ("seed", 2**64),
    ("seed", 0.5),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be") as error:
        SamplingSettings(**{name: value})
    assert str(error.value).count("must be") == 1


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ValueError, match=r"max_new_tokens.*temperature.*top_p.*seed"):
        SamplingSettings(max_new_tokens=0, temperature=-1, top_p=2, seed=-5)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="top_n"):
        SamplingSettings(top_n=3)


def test_one_stop_string_may_be_given_bare():
    assert SamplingSettings(stop="\n\n").stop == ("\n\n",)
    assert SamplingSettings(stop=["a", "b"]).stop == ("a", "b")


def pushed(stops: list[str], pieces: list[str]) -> str:
    matcher = StopStrings(stops)
    text = "".join(matcher.push(piece) for piece in pieces)
    return text + matcher.finish()


def test_a_stop_string_split_over_pieces_is_cut_off():
    assert pushed(["\n\n"], ["день", "\n", "\nночь"]) == "день"
    assert pushed(["конец"], ["но", "ко", "не", "ц!"]) == "но"


def test_the_start_of_a_stop_string_is_held_back_until_it_is_known():
    matcher = StopStrings(["abac"])
    assert [matcher.push(piece) for piece in ["xab", "a", "b", "d"]] == ["x", "", "ab", "abd"]
    assert matcher.push("aba") == ""
    assert matcher.finish() == "aba"
    assert not matcher.found


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["abc", "b"], "xabcx", "xa"),  # "b" is complete first
        (["abc", "bc"], "xabcx", "x"),  # both at once: the longer
        (["aab"], "aaaab", "aa"),
        (["zz"], "xyz", "xyz"),
        ([], "xyz", "xyz"),
    ],
)
def test_the_cut_does_not_depend_on_the_pieces(stops, text, expected):
    for cuts in range(2 ** (len(text) - 1)):
        pieces = [text[0]]
        for i, letter in enumerate(text[1:]):
            if cuts >> i & 1:
                pieces.append(letter)
            else:
                pieces[-1] += letter
        assert pushed(stops, pieces) == expected, pieces
