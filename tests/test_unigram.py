"""The Viterbi segmenter by hand and against recorded ids, and the trainer in T5's form."""

import itertools
import random
from pathlib import Path

import pytest
from reference_data import load_json, reference

from minipoet.text import read_corpus
from minipoet.tokenization import PublishedTokenizer, load_tokenizer, train_bpe
from minipoet.tokenization.sentencepiece import NORMAL, read_model
from minipoet.tokenization.unigram import Unigram, segment, unigram_scores
from minipoet.tokenization.unigram_train import train_unigram

SCORES = {"a": -1.0, "b": -2.0, "ab": -2.5, "ba": -2.0, "aba": -5.0}
TEXTS = ["Снег идёт, снег идёт.\nТишина над рекой.", "Над рекой туман, и снег над рекой."] * 8


def recorded_unigram(name: str = "plain") -> Unigram:
    pieces = read_model(reference(f"unigram/{name}.model")).pieces
    return Unigram({piece.text: piece.score for piece in pieces if piece.kind == NORMAL})


@pytest.fixture(scope="module")
def trained() -> PublishedTokenizer:
    return train_unigram(TEXTS, 400)


# Segmenting


def test_worked_example() -> None:
    # abab: best(1) a -1; best(2) ab -2.5 before a·b -3; best(3) a·ba -3 before aba -5 and ab·a -3.5;
    # best(4): ab·ab -5, a·ba·b -5: a tie, and the cut whose last piece begins earlier was there first.
    assert segment("abab", SCORES) == ["ab", "ab"]
    assert segment("aba", SCORES) == ["a", "ba"]
    assert Unigram(SCORES).score(["a", "ba"]) == -3.0


def test_unknown_characters_cost_ten_more_than_the_worst_piece_and_are_joined() -> None:
    unigram = Unigram(SCORES)
    assert unigram.unknown == -15.0
    assert unigram.segment("axyb") == ["a", "xy", "b"]
    assert segment("xa", SCORES) == ["x", "a"] and segment("", SCORES) == []


def test_a_dear_piece_goes_behind_an_unknown_character() -> None:
    # "b" is no piece: "ab" costs 30 more than it is worth beside a·(b unknown).
    assert segment("ab", {"a": -1.0, "ab": -50.0}) == ["ab"]  # the unknown costs 60
    assert segment("abc", {"a": -1.0, "ab": -8.0, "bc": -1.0}) == ["a", "bc"]


@pytest.mark.parametrize("seed", range(4))
def test_no_cut_of_a_random_word_is_better(seed: int) -> None:
    rng = random.Random(seed)
    pieces = {"".join(rng.choices("abc", k=rng.randint(1, 3))): -rng.uniform(0.5, 9) for _ in range(9)}
    unigram = Unigram(pieces)
    for _ in range(40):
        word = "".join(rng.choices("abcd", k=rng.randint(1, 8)))
        scores = []
        for count in range(len(word)):
            for places in itertools.combinations(range(1, len(word)), count):
                cut = [word[i:j] for i, j in itertools.pairwise((0, *places, len(word)))]
                if all(piece in pieces or len(piece) == 1 for piece in cut):
                    scores.append(unigram.score(cut))
        ours = unigram.segment(word)
        assert "".join(ours) == word
        parts = [part for piece in ours for part in ([piece] if piece in pieces else piece)]  # unknown ones are joined
        assert unigram.score(parts) == pytest.approx(max(scores))


def test_pieces_are_those_of_sentencepiece() -> None:
    recorded, unigram = load_json("unigram/plain"), recorded_unigram()
    names = recorded["pieces"].split(" ")
    compared = 0
    for text, row in zip(recorded["texts"], recorded["ids"], strict=True):
        if set(text) & set("\t\n\r\u00a0\u3000\u200b▁"):  # plain spaces only: what Python takes for one and it does not
            continue
        ours = [piece if piece in unigram.scores else "<unk>" for piece in unigram.pieces(text)]
        assert ours == [names[int(id)] for id in row.split()], text
        compared += 1
    assert compared > 80


@pytest.mark.parametrize("seed", range(3))
def test_random_strings_get_the_ids_of_the_library(seed: int, trained: PublishedTokenizer) -> None:
    rng, unigram = random.Random(seed), Unigram(unigram_scores(trained))
    vocab = {piece: id for id, (piece, _) in enumerate(trained.spec["model"]["vocab"])}
    for _ in range(200):
        text = "".join(rng.choices("снегидётСна, .🦉№ф", k=rng.randint(0, 30))).replace("№", "")
        assert [vocab.get(piece, 2) for piece in unigram.pieces(text)] == trained.encode(text), text


def test_time_grows_with_the_length_of_a_word() -> None:
    cut = recorded_unigram().segment("смотритель" * 5000)
    assert "".join(cut) == "смотритель" * 5000


@pytest.mark.parametrize("scores", [{}, None, ["a"]])
def test_what_are_no_scores_is_named(scores: object) -> None:
    with pytest.raises(ValueError, match="scores"):
        segment("a", scores)  # type: ignore[arg-type]


def test_scores_of_another_kind_are_refused(tmp_path: Path) -> None:
    train_bpe(["снег"], 259).save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match="must be a unigram model, and is of the type 'BPE'"):
        unigram_scores(load_tokenizer(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="The tokenizer must be a PublishedTokenizer"):
        unigram_scores(train_bpe(["снег"], 259))  # type: ignore[arg-type]


# Learning


def test_form_is_that_of_t5(trained: PublishedTokenizer) -> None:
    names = [piece for piece, _ in trained.spec["model"]["vocab"]]
    assert names[:3] == ["<pad>", "</s>", "<unk>"]
    assert names[-100] == "<extra_id_99>" and names[-1] == "<extra_id_0>"
    assert len(names) == trained.vocab_size <= 400
    assert (trained.pad_id, trained.eos_id, trained.bos_id) == (0, 1, None)
    assert trained.sentinel_ids == list(range(trained.vocab_size - 1, trained.vocab_size - 100, -1))
    assert trained.line_break_id == trained.vocab_size - 100


def test_vocabulary_size_counts_everything() -> None:
    texts = [poem.text for poem in read_corpus("embedded")]
    tokenizer = train_unigram(texts, 700, sentinels=20)
    assert tokenizer.vocab_size == 700 and len(tokenizer.sentinel_ids) == 19


def test_scores_are_logarithms_and_fall(trained: PublishedTokenizer) -> None:
    scores = list(unigram_scores(trained).values())
    assert scores == sorted(scores, reverse=True)
    assert max(scores) < 0


def test_no_piece_has_letters_and_punctuation(trained: PublishedTokenizer) -> None:
    bodies = [piece.lstrip("▁") for piece in unigram_scores(trained)]
    mixed = [body for body in bodies if body and not body.isalpha() and any(map(str.isalpha, body))]
    assert mixed == []


def test_text_comes_back_as_normalised(trained: PublishedTokenizer) -> None:
    text = "Снег  ﬁ…\u00a0№\tнад\n\n рекой \r\n"
    assert trained.decode(trained.encode(text)) == "Снег fi... No над\n\nрекой\n"


def test_ordinary_characters_are_known_even_if_the_texts_have_none(trained: PublishedTokenizer) -> None:
    assert 2 not in trained.encode("Wi-Fi 100 % — «Ёж», 250₽!")
    assert 2 in trained.encode("🦉")


def test_the_same_texts_give_the_same_vocabulary(trained: PublishedTokenizer) -> None:
    assert train_unigram(TEXTS, 400).spec == trained.spec


def test_long_texts_are_sampled_line_by_line() -> None:
    texts = ["раз два три\nчетыре пять шесть\nраз два три\nчетыре пять шесть"] * 100
    half = train_unigram(texts, 400, characters=sum(map(len, texts)) // 2, alphabet="")
    assert 2 not in half.encode("раз два три")
    assert 2 in half.encode("пять")  # every second line is never read


def test_it_comes_back_from_its_folder(trained: PublishedTokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert isinstance(back, PublishedTokenizer)
    assert (back.spec, back.line_break_id, back.sentinel_ids) == (
        trained.spec,
        trained.line_break_id,
        trained.sentinel_ids,
    )


def test_a_spelt_special_is_never_learnt() -> None:
    tokenizer = train_unigram(["</s> <unk> <pad> <extra_id_99>"] * 50, 300)
    ids = tokenizer.encode("</s> <unk> <pad> <extra_id_99>")
    assert not {0, 1, 2, tokenizer.line_break_id, *tokenizer.sentinel_ids} & set(ids)


@pytest.mark.parametrize(
    ("texts", "size", "words"),
    [
        ([], 500, "no text to learn from"),
        ([" ", "\n"], 500, "no text to learn from"),
        ("снег", 500, "must be a list of strings, got one string"),
        ([1], 500, "number 0 of it is 1"),
        (TEXTS, 0, "vocab_size=0"),
        (TEXTS, 120, "vocab_size is 120, of which 103 are specials and sentinels"),
        (["\ud83c"], 500, "lone surrogate"),
    ],
)
def test_what_cannot_be_learnt_is_named(texts: object, size: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        train_unigram(texts, size)  # type: ignore[arg-type]
