"""What a careless user is told: one sentence of ours, with what was expected and what came; nothing from inside."""

import os
import runpy
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from training_support import CONTEXT, random_texts, tiny_batches, tiny_gpt2

import minipoet
from minipoet.adapters import LoRAConfig, attach
from minipoet.checks import as_device
from minipoet.evaluation import (
    AuthorJudge,
    CopyIndex,
    Copying,
    Frequencies,
    Likelihood,
    Repetition,
    Spelling,
    chrf,
    compare,
    copied_words,
    counts_by_size,
    distinct,
    fair_bits,
    first_lines,
    frequencies,
    how_often,
    likelihood,
    mean_of,
    openings,
    prefix_mass,
    quatrains_asked,
    ratio_of,
    repetition,
    sentence_chrf,
    split_for_judge,
    unknown_cost,
    unseen_letters,
    verse_form,
    wilson,
)
from minipoet.files import read_json, write_text_atomic
from minipoet.generation import SamplingSettings, StopStrings, generate_ids, generate_many, stream
from minipoet.models import load_model, save_model, training_memory
from minipoet.models.gpt2 import GPT2, GPT2Config
from minipoet.models.inputs import make_input
from minipoet.models.ngram import NGram
from minipoet.models.rnn import LSTM, RNNConfig
from minipoet.models.window import WindowMLP, WindowMLPConfig
from minipoet.models.word2vec import nearest, train_word2vec
from minipoet.plots import (
    Sample,
    compare_in_terminal,
    curve_pictures,
    plot_bars,
    plot_history,
    plot_points,
    plot_ranks,
    plot_rare,
    plot_study,
    plot_trials,
    plot_vocabularies,
    write_page,
)
from minipoet.text import (
    Poem,
    Quotations,
    VerseFilter,
    clean_text,
    drop_duplicates,
    fetch,
    parse_poems,
    read_corpus,
    read_poems,
    read_records,
    read_stihi,
    split_by_poem,
    split_by_work,
    work_of,
)
from minipoet.text.excerpts import excerpts, quatrains
from minipoet.text.requests import genitive, parse_poet, request
from minipoet.text.themes import Themes
from minipoet.tokenization import (
    PLAIN,
    CharTokenizer,
    ChatTemplate,
    PublishedTokenizer,
    StreamDecoder,
    WordTokenizer,
    chat_template,
    encode_texts,
    split_tokens,
    tokenized,
    train_bpe,
)
from minipoet.training import (
    Batches,
    History,
    Mixture,
    Streams,
    TrainSettings,
    load_last_weights,
    read_history,
    train,
)
from minipoet.training.folder import alone
from minipoet.training.instruction import check_enough, examples
from minipoet.training.metrics import completion_metrics, lab_table, logged
from minipoet.training.search import search
from minipoet.training.space import Choice, LogUniform, draw, grid

PACKAGE = Path(minipoet.__file__).parent
EXAMPLE = PACKAGE.parent / "examples" / "train_poet_tiny.py"


@cache
def poet():
    return minipoet.load("poet-tiny")


def run(folder, model=None, batches=None, settings=None, **options):
    settings = settings or TrainSettings(steps=6, evaluate_every=2, precision="fp32")
    return train(model or tiny_gpt2(), batches or tiny_batches(), settings, folder, quiet=True, **options)


def small_lstm():
    return LSTM(RNNConfig(5, n_embd=4, n_hidden=4, n_layer=1))


def ids(model=None, prompts=((1,),), settings=None, **options):
    return generate_ids(model or tiny_gpt2(), prompts, settings or SamplingSettings(max_new_tokens=2), **options)


def folder_with(content: str) -> str:
    write_text_atomic("m/config.json", content)
    return "m"


CHARS, WORDS = CharTokenizer.from_texts(["дом"]), WordTokenizer.from_texts(["дом"], 1)

# The call, in an empty folder with a file "a.txt", and words that its error must have.
MISTAKES = [
    # loading
    (lambda: minipoet.load(None), "or one of poet-tiny, poet-chat, reviewer-tiny, got None"),
    (lambda: minipoet.load("a.txt"), "a.txt is a file: give the folder"),
    (lambda: minipoet.load("."), "no config.json"),
    (lambda: minipoet.load(folder_with("{oops")), "m/config.json is not a JSON file"),
    (lambda: minipoet.load(folder_with("[1]")), "m/config.json should hold a JSON object, but holds a list"),
    (lambda: minipoet.load(folder_with('{"model_type": "llama"}')), "m: config.json says model_type 'llama'"),
    (lambda: minipoet.load("poet-tiny", dtype="fp32"), "torch.float32, torch.bfloat16"),
    (lambda: minipoet.load("poet-tiny", dtype=torch.int64), "got torch.int64"),
    (lambda: minipoet.load("poet-tiny", device="gpu"), "The device 'gpu' cannot be used here"),
    (lambda: load_model(None), "must be a path (a string or a pathlib.Path), got None"),
    (lambda: load_model("a.txt"), "no config.json"),
    (lambda: minipoet.load_tokenizer(None), "must be a path"),
    (lambda: minipoet.load_tokenizer("poet-tiny"), "does not exist: expected the folder of a model"),
    (lambda: PublishedTokenizer(5, {}), "the content of a tokenizer.json, got 5"),
    (lambda: PublishedTokenizer({}, None), "special strings by role"),
    # saving
    (lambda: minipoet.save(*reversed(poet()), "new"), "must be a language model, got BPETokenizer"),
    (lambda: minipoet.save(*poet(), None), "must be a path"),
    (lambda: minipoet.save(*poet(), "a.txt"), "Could not write a.txt/vocab.json: a.txt is a file, not a folder"),
    (lambda: save_model(tiny_gpt2(), "a.txt/x"), "Could not make the folder a.txt/x: a.txt is a file"),
    (lambda: save_model(None, "new"), "must be a language model, got None"),
    (lambda: read_json("."), ". cannot be read: Is a directory"),
    # adapters
    (lambda: minipoet.add_lora(None), "must be a language model, got None"),
    (lambda: minipoet.add_lora(torch.nn.Linear(3, 3)), "got Linear"),
    (lambda: minipoet.add_lora(tiny_gpt2(), rank=True), "rank must be a whole number of at least 1, got True"),
    (lambda: minipoet.add_lora(tiny_gpt2(), alpha="8", dropout="x"), "alpha must be a finite number, got '8'; dropout"),
    (lambda: minipoet.add_lora(tiny_gpt2(), targets=5), "targets must be names of layers"),
    (lambda: minipoet.add_lora(tiny_gpt2(), targets="qkv["), "'qkv[' is no regular expression"),
    (lambda: minipoet.add_lora(tiny_gpt2(), name=5), "name must be a string"),
    (lambda: minipoet.add_lora(tiny_gpt2(), name="keys"), "no word of PyTorch's"),
    (lambda: minipoet.add_lora(tiny_gpt2(), seed="a"), "seed must be a whole number from 0"),
    (lambda: LoRAConfig(rank_pattern={"[": 2}), "rank_pattern must give values by patterns"),
    (lambda: LoRAConfig(alpha_pattern={"up": "x"}), "alpha must be a finite number, got 'x'"),
    (lambda: attach(tiny_gpt2(), {"rank": 2}), "must be a LoRAConfig(rank=...), got dict"),
    (lambda: minipoet.merge_lora((1, 2)), "got tuple: model, tokenizer = minipoet.load(name)"),
    (lambda: minipoet.remove_lora(None), "must be a language model"),
    # talking, teaching to talk, and judging
    (lambda: minipoet.chat(*poet(), "а"), "no chat form: its tokenizer lacks <|im_start|> and <|im_end|>"),
    (lambda: minipoet.chat(None, None, "а"), "must be a language model, got None"),
    (lambda: chat_template(None), "The tokenizer must be one of minipoet's, got None"),
    (lambda: ChatTemplate(5), "The default system message must be a string or None, got 5"),
    (lambda: PLAIN.text("а"), "A conversation must be a list of messages"),
    (lambda: PLAIN.text([]), "it has no message"),
    (lambda: PLAIN.text([{"role": "poet", "content": "а"}]), "message 1 has the role 'poet', and there are"),
    (lambda: excerpts("а", len, 3), "must be a Poem(text), got 'а'"),
    (lambda: excerpts(Poem("а"), len, 0), "got room=0"),
    (lambda: quatrains(5), "The text must be a string, got 5"),
    (lambda: request(0, "а", "б"), "got quatrains=0"),
    (lambda: request(1, "", "б"), "The theme must be some words on one line, got ''"),
    (lambda: genitive(5), "The poet must be a surname, got 5"),
    (lambda: parse_poet(""), 'The poet must be a name, or "Name/Genitive"'),
    (lambda: Themes.of([]), "there is no poem in this one"),
    (lambda: examples([], None, PLAIN, poet()[1], 64), "There is no poem to make an example of"),
    (lambda: examples([Poem("а")], None, 5, poet()[1], 64), "The template must be a ChatTemplate, got 5"),
    (lambda: check_enough("Фет", []), "Фет has 0 poems, but 20 are needed at least"),
    (lambda: completion_metrics(tiny_gpt2(), [1]), "batches must be Batches(texts, length, rows"),
    (lambda: logged(5), "history must be what train gives, or read_history, got 5"),
    (lambda: lab_table(5), "lab_table needs the rows of each author"),
    (lambda: AuthorJudge.fit(5), "The texts must be a mapping, got 5"),
    (lambda: AuthorJudge.fit({"а": ["б"]}), "To tell authors apart takes two or more, got а"),
    (lambda: how_often(None, {}), "The judge must be an AuthorJudge, got None"),
    (lambda: split_for_judge(5), "The poems must be a mapping, got 5"),
    (lambda: quatrains_asked(5), "The texts must be a list of strings, got 5"),
    (lambda: write_page("x.html", 5), "comparison must be a Comparison, got 5"),
    (lambda: compare_in_terminal(5), "comparison must be a Comparison, got 5"),
    (lambda: curve_pictures({}), "There is no history to draw"),
    (lambda: Sample(5), "The text of a sample must be a string, got 5"),
    (lambda: training_memory(5, 1, 1), "The model must be a model, as the first of what minipoet.load gives, got 5"),
    (lambda: training_memory(tiny_gpt2(), 0, 1), "got rows=0"),
    (lambda: generate_many(*poet(), ["а"], adapters=5), "adapters must name the adapter, or None"),
    (lambda: generate_many(*poet(), ["а"], adapters=["x"]), "There is no adapter 'x' on this model; it has none"),
    # writing
    (lambda: minipoet.generate(*poet(), 5), "must be a string, got 5"),
    (lambda: minipoet.generate(*poet(), "а", temprature=1), "'temprature' (did you mean 'temperature'?); it has max_"),
    (lambda: minipoet.generate(*poet(), "а", samples=2), "has no 'samples'"),
    (lambda: stream(*poet(), "а", top_q=1), "has no 'top_q'"),
    (lambda: minipoet.generate(*reversed(poet()), "а"), "must be a language model, got BPETokenizer"),
    (lambda: minipoet.generate(poet(), poet()[1], "а"), "got tuple"),
    (lambda: minipoet.generate(poet()[0], None, "а"), "The tokenizer must be one of minipoet's, got None"),
    (lambda: generate_many(*poet(), [1]), "number 0 of it is 1"),
    (lambda: generate_many(*poet(), None), "must be a list of strings, got None"),
    (lambda: generate_many(*poet(), ["а"], samples="2"), "samples must be at least 1, got '2'"),
    (lambda: generate_many(*poet(), ["а"], batch_size="2"), "batch_size must be at least 1, got '2'"),
    (lambda: ids(prompts=[[1, 99]]), "prompt 0 has the id 99, but the vocabulary has 0 to 49"),
    (lambda: ids(prompts=["ab"]), "Prompt 0 must be a list of whole numbers"),
    (lambda: ids(prompts=[1, 2]), "Prompt 0 must be a list of whole numbers"),
    (lambda: ids(prompts=None), "must be a list of lists of ids, got None"),
    (lambda: ids(settings={"seed": 1}), "must be SamplingSettings(...), got dict"),
    (lambda: ids(banned=[99]), "eos_ids and banned have [99], but the model has 0 to 49"),
    (lambda: ids(eos_ids=5), "eos_ids must be a list of whole numbers"),
    (lambda: ids(seeds=["a"]), "The seeds must be a list of whole numbers"),
    (lambda: ids(on_token=5), "on_token must be a function"),
    (lambda: ids(vocab_size="a"), "vocab_size='a'"),
    (lambda: StopStrings("abc"), "got one string: put it into a list"),
    (lambda: StreamDecoder(tiny_gpt2()), "The tokenizer must be one of minipoet's, got GPT2"),
    # the model itself
    (lambda: tiny_gpt2()([[1, 2]]), "A model reads a tensor of ids, (B, T), got list"),
    (lambda: tiny_gpt2()(torch.tensor([1, 2])), "(2,) of torch.int64"),
    (lambda: tiny_gpt2()(torch.zeros(1, 2)), "(1, 2) of torch.float32"),
    (lambda: tiny_gpt2()(torch.tensor([[1, 50]])), "The ids go from 1 to 50, but this model has 0 to 49"),
    (lambda: GPT2(None), "must be a GPT2Config(...), got None"),
    (lambda: GPT2Config(n_embd="768", resid_pdrop="x"), "n_embd = '768' must be a whole number of at least 1; resid_"),
    (lambda: GPT2Config(n_inner=1.5, activation_function=[1]), "n_inner = 1.5"),
    (lambda: GPT2Config(activation_function=[1]), "Unknown activation [1]"),
    # texts
    (lambda: read_poems(None), "must be a path"),
    (lambda: read_corpus("embedded", "Есенин"), "has one author: leave the choice of 'Есенин' out"),
    (lambda: read_poems("a.txt", author=5), "author must be a name, got 5"),
    (lambda: parse_poems(Path("a.txt")), "files are read by read_poems"),
    (lambda: list(read_records("nowhere.jsonl")), "nowhere.jsonl: cannot be read (No such file or directory)"),
    (lambda: Poem(5), "Poem: text must be a string, got 5"),
    (lambda: Poem("Вьюга", None), "Poem: title must be a string, got None"),
    (lambda: clean_text(None), "must be a string, got None"),
    (lambda: drop_duplicates(["Вьюга"]), "a list of Poem(text), but number 0 of it is 'Вьюга'"),
    (lambda: drop_duplicates("Вьюга"), "got one string"),
    (lambda: split_by_work(None), "a list of Poem(text), got None"),
    (lambda: split_by_work([Poem("Вьюга")], "0.1"), "expected 0 < share < 1, got '0.1'"),
    (lambda: work_of("Вьюга"), "must be a Poem(text), got 'Вьюга'"),
    (lambda: Quotations("Вьюга мглою"), "got one string"),
    (lambda: Quotations([], min_words=0), "min_words=0"),
    (lambda: Quotations([]).drop(Poem("Вьюга")), "must be a string, got Poem"),
    (lambda: fetch("https://x"), "must be a Pin(url, sha256, size, licence), got 'https://x'"),
    (lambda: train_bpe([Poem("Вьюга")], 300), "number 0 of it is Poem"),
    (lambda: train_bpe(["Вьюга"], 300.5), "vocab_size=300.5"),
    (lambda: train_bpe(["Вьюга"], 300, "<s>"), "special_tokens must be a list of strings, got one string"),
    (lambda: train_bpe(["Вьюга"], 300, min_frequency="2"), "min_frequency='2'"),
    (lambda: encode_texts(poet()[1], "Вьюга"), "got one string"),
    (lambda: encode_texts(poet()[0], ["Вьюга"]), "The tokenizer must be one of minipoet's, got GPT2"),
    # training
    (lambda: Batches("Вьюга", 8, 2), "lists of token ids (encode_texts), got 'Вьюга'"),
    (lambda: Batches(["Вьюга"], 8, 2), "a list of token ids, as encode_texts gives them, got 'Вьюга'"),
    (lambda: Batches([1, 2], 8, 2), "as encode_texts gives them, got 1"),
    (lambda: Batches([[1.5, 2.5]], 8, 2), "as encode_texts gives them"),
    (lambda: Batches([[-1, 2]], 8, 2), "as encode_texts gives them"),
    (lambda: Batches([[[1], [2, 3]]], 8, 2), "as encode_texts gives them"),
    (lambda: Batches([[1, 2]], "8", 2), "length ≥ 1, rows ≥ 1 and seed ≥ 0, got '8', 2 and 0"),
    (lambda: tiny_batches().batch("1"), "There is no batch of step 1"),
    (lambda: tiny_batches().steps_per_epoch(world=0), "0 processes"),
    (lambda: Mixture(None, [(1, {"a": 1})]), "sources must be Batches by name, got None"),
    (lambda: Mixture({"a": tiny_batches()}, None), "phases must be a list"),
    (lambda: Mixture({"a": tiny_batches()}, [{"a": 1}]), "a phase must be (batch at which it ends"),
    (lambda: Mixture({"a": tiny_batches()}, [(1, {"a": "x"})]), "shares must not be negative"),
    (lambda: Mixture({"a": tiny_batches()}, [("x", {"a": 1})]), "at a whole number of batches, got 'x'"),
    (lambda: Mixture({"a": tiny_batches()}, [(3, {"a": 1})]).batch(-1), "there is no batch -1"),
    (lambda: TrainSettings(steps=1, seed=2**64), "seed must be less than 2**64"),
    (lambda: run("r", model=(1, 2)), "must be a language model, got tuple"),
    (lambda: run("r", batches=[[1, 2]]), "must be Batches(texts, length, rows) or a Mixture of them, got list"),
    (lambda: run("r", batches=Batches([[1, 50]], 8, 2)), "have the id 50, but this model has 0 to 49"),
    (lambda: run("r", batches=Mixture({"a": Batches([[1, 50]], 8, 2)}, [(6, {"a": 1})])), "have the id 50"),
    (lambda: run("r", batches=Batches([[1] * 30], 30, 2)), "29 tokens long, but this model reads at most 16"),
    (lambda: run("r", settings={"steps": 1}), "must be TrainSettings(steps=...), got dict"),
    (lambda: run("r", validate=3.0), "validate must be a function"),
    (lambda: run("r", validate=lambda: None), "validate() must give a number, got None"),
    (lambda: run("r", stop_after="3"), "stop_after must be at least 1, got '3'"),
    (lambda: run(None), "must be a path"),
    (lambda: run("a.txt"), "Could not make the folder a.txt: a.txt is a file, not a folder"),
    (lambda: History(5), "must be a path"),
    (lambda: read_history("nowhere"), "nowhere cannot be read (No such file or directory)"),
    (lambda: load_last_weights("nowhere", tiny_gpt2()), "There is no checkpoint nowhere"),
    (lambda: load_last_weights("a.txt", None), "must be a language model, got None"),
    # measuring and drawing
    (lambda: likelihood(poet()[1], [[1, 2]], 5, 8), "must be a language model, got BPETokenizer"),
    (lambda: likelihood(tiny_gpt2(), [[1, 50]], 5, 8), "have the id 50, but this model has 0 to 49"),
    (lambda: likelihood(tiny_gpt2(), [[1, 2]], "5", 8), "one character or more in all, got '5'"),
    (lambda: CopyIndex("Вьюга мглою"), "got one string"),
    (lambda: CopyIndex([Poem("Вьюга")]), "number 0 of it is Poem"),
    (lambda: CopyIndex(["Вьюга мглою"]).copying("Вьюга"), "got one string"),
    (lambda: CopyIndex(["Вьюга мглою"]).longest_run(5), "must be a string, got 5"),
    (lambda: Copying(()), "no text to look for copies in"),
    (lambda: plot_history("history.jsonl", "p.png"), "must be a History, got 'history.jsonl'"),
    (lambda: plot_history(History(), None), "must be a path"),
    (lambda: plot_study([1], "p.png"), "curves must be points by label"),
    (lambda: plot_study({"a": [1]}, "p.png"), "must be (setting, mean, standard deviation), got 1 in 'a'"),
    # letters, words, counting
    (lambda: CharTokenizer.from_texts("дом"), "The texts must be a list of strings, got one string"),
    (lambda: CharTokenizer.from_texts([]), "The vocabulary would be empty"),
    (lambda: CharTokenizer.from_texts(["дом"], 0), "whole numbers of at least 1, got min_count=0"),
    (lambda: CharTokenizer.from_texts(["дом"], unk="no"), "unk must be True or False, got 'no'"),
    (lambda: CharTokenizer.from_texts(["дом"]).encode("лес"), "lacks some of the text: 'л', 'е', 'с'"),
    (lambda: CharTokenizer("дом"), "The tokens must be a list of strings, got one string"),
    (lambda: WordTokenizer.from_texts(["дом"]), "of the 1 words and signs of the texts none stands 2 times"),
    (lambda: WordTokenizer.from_texts(["дом"], 1, max_words=0), "got max_words=0"),
    (lambda: WordTokenizer(["два слова"]), "not one word or sign, the first is 'два слова'"),
    (lambda: split_tokens(["дом"]), "The text must be a string, got list"),
    (lambda: NGram(0, 3), "got order=0"),
    (lambda: NGram(2, 3).learn("abc"), "must be lists of ids, as encode_texts gives them, got 'abc'"),
    (lambda: NGram(2, 3).learn([1, 2]), "Text 0 must be a list of whole numbers"),
    (lambda: NGram(2, 3).learn([[0, 7]]), "has ids that the model lacks (7): expected 0 to 2"),
    (lambda: NGram(2, 3).distribution(5), "The context must be a list of whole numbers"),
    (lambda: NGram(2, 3).write([0], 5, stop="</s>"), "got stop='</s>'"),
    (lambda: Spelling("вода"), "The words must be a list of strings, got one string"),
    (lambda: Spelling([]), "there is none: leave rare words out"),
    (lambda: Spelling(["вода"]).nll(5), "The word must be a string, got 5"),
    (lambda: unseen_letters(5), "The letters must be a list of strings, got 5"),
    (lambda: repetition("Вьюга"), "The texts must be a list of strings, got one string"),
    (lambda: repetition(["Вьюга"]), "None of the 1 text(s) has 50 words, the longest has 1"),
    (lambda: repetition(["Вьюга"], 3), "at least 4, got window=3"),
    (lambda: Repetition((), None), "no text to look for repetition in"),
    (lambda: frequencies("на дне"), "must be a list of texts, each a list of types, got 'на дне'"),
    (lambda: frequencies([]), "no type to count"),
    (lambda: frequencies([[1], 5]), "number 1 of them is 5"),
    (lambda: Frequencies((1, -1)), "whole numbers of 0 or more"),
    (lambda: frequencies([[1]]).characters_per_token, "give characters="),
    (lambda: frequencies([[1]]).zipf_slope(), "The ranks must be two or more"),
    (lambda: frequencies([[1]]).reached(95), "above 0 and at most 1, got 95"),
    (lambda: next(counts_by_size("verse", ["а"])), "must be a BPETokenizer, got 'verse'"),
    (lambda: plot_ranks({}, "p.png"), "no counts to draw"),
    (lambda: plot_rare({"words": [1]}, "p.png"), "must be Frequencies, got list"),
    (lambda: plot_vocabularies({"BPE": [(1, 2)]}, "p.png"), "must be (x, y, name), got tuple"),
    (lambda: plot_bars({"a": "b"}, "p.png"), "a number for each bar, got {'a': 'b'}"),
    (lambda: train_word2vec([[1, 2, 9]], 5), "Text 0 has the id 9, but the vocabulary is 0 … 4"),
    (lambda: train_word2vec([[1], [2]], 5), "expected a text of two or more, got 2 text(s)"),
    (lambda: train_word2vec([[1, 2]], 5, window=0, epochs="x"), "window=0 (expected a whole number ≥ 1), epochs='x'"),
    (lambda: train_word2vec(None, 5), "The texts must be lists of token ids"),
    (lambda: nearest(torch.zeros(5, 2), 0), "has no vector: it is not in the texts, or was ignored."),
    (lambda: nearest(torch.ones(5, 2), "конь"), "An id must be a whole number below 5, got 'конь'."),
    (lambda: fair_bits(2.5, CHARS, ["дом"]), "The likelihood must be a Likelihood, got 2.5"),
    (lambda: fair_bits(Likelihood(1.0, 3, 3), CHARS, ["дом"]), "is of 3 tokens, but these texts have 4"),
    (lambda: unknown_cost(WORDS, ["я"]), "give a Spelling of the words that it lacks"),
    (lambda: unknown_cost(WORDS, "я"), "must be a list of strings, got one string"),
    (lambda: unknown_cost(WORDS, ["я"], ["я"]), "spelling must be a Spelling or None, got list"),
    (lambda: unknown_cost(None, ["я"]), "The tokenizer must be one of minipoet's, got None"),
    # recurrent and windowed models
    (lambda: WindowMLP(None), "must be a WindowMLPConfig(...), got None"),
    (lambda: WindowMLPConfig(window=0, dropout="x"), "window = 0 must be a whole number of at least 1; dropout = 'x'"),
    (lambda: WindowMLPConfig(activation_function="sin"), "Unknown activation 'sin' in the config; known are"),
    (lambda: WindowMLP(WindowMLPConfig(5))(torch.tensor([[-1]])), "The ids go from -1 to -1, but this model has"),
    (lambda: make_input("onehot", 5, 2, 3), "inputs = 'onehot' must be one of embedding, label, one-hot, bag"),
    (lambda: LSTM(None), "must be an RNNConfig(...), got None"),
    (lambda: RNNConfig(inputs="onehot"), "must be one of embedding, label, one-hot, bag"),
    (lambda: RNNConfig(n_layer=0, dropout=1), "n_layer = 0 must be a whole number of at least 1; dropout = 1 must be"),
    (lambda: RNNConfig(tie_word_embeddings=True), "as wide as the state, got inputs = 'embedding', n_embd = 128 and"),
    (lambda: LSTM(RNNConfig(5))(torch.tensor([[7]])), "The ids go from 7 to 7, but this model has 0 to 4"),
    (lambda: Choice(), "A Choice needs at least one value"),
    (lambda: LogUniform(0, 1), "0 < low ≤ high, got 0 and 1"),
    (lambda: draw({"lr": 0.1}, 0, 0), "space['lr'] must be a Choice, a LogUniform or a Given, got 0.1"),
    (lambda: draw({}, "a", 0), "whole numbers from 0, got 'a' and 0"),
    (lambda: grid({"n": 5}), "The axis 'n' of a grid must be a list of values, got 5"),
    (lambda: search([1], dict, "s.jsonl", {}), "number 0 of it is 1"),
    (lambda: search([{}], None, "s.jsonl", {}), "evaluate must be a function"),
    (lambda: plot_trials({}, "p.png"), "There are no points to draw"),
    (lambda: plot_points({"a": [1]}, "p.png"), "A point must be (x, y), got 1 in 'a'"),
    (lambda: small_lstm()(torch.ones(2, 2).long(), small_lstm().new_cache(3)), "cache is that of 3 texts, but 2 rows"),
    (lambda: small_lstm()(torch.ones(2, 2).long(), segments=torch.ones(2, 3).long()), "Segments say of each id which"),
    (lambda: minipoet.add_lora(small_lstm(), targets=["recurrent_weight"]), "matches no layer"),
    (lambda: Streams("дом", 2, 1), "as lists of token ids (encode_texts), got 'дом'"),
    (lambda: Streams([[1]], 2, 1), "no text of two tokens or more"),
    (lambda: Streams([[1, 2, 3]], 5, 1), "take windows of at most 2 tokens, fewer rows, or more text"),
    (lambda: run("r", batches=Streams([[1] * 9], 4, 2)), "GPT2 carries none: use Batches"),
    (lambda: run("r", LSTM(RNNConfig(5)), Streams([[9] * 9], 4, 2)), "The texts have the id 9, but this model has"),
    (lambda: Mixture({"a": Streams([[1] * 9], 4, 2)}, [(5, {"a": 1})]), "the sources take turns: use Batches"),
    # prefixes
    (lambda: minipoet.add_prefix(None), "must be a language model, got None"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), "15"), "num_virtual_tokens must be a whole number of at least 1"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), 2, True, 0), "hidden must be None or a whole number of at least 1"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), CONTEXT), f"num_virtual_tokens can be {CONTEXT - 1} at most"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), 2, init="Мороз и солнце"), "the ids of a text (encode), got 'Мороз и"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), 2, init=["Мороз", "и"]), "init must be a list of whole numbers"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), 2, init=[]), "The text to start at is empty"),
    (lambda: minipoet.add_prefix(tiny_gpt2(), 2, seed="a"), "seed must be a whole number from 0"),
    (lambda: minipoet.add_prefix(small_lstm()), "give num_virtual_tokens=1, not 15"),
    (lambda: minipoet.add_prefix(WindowMLP(WindowMLPConfig(5)), 1), "teach it by LoRA instead"),
    (lambda: minipoet.merge_lora(minipoet.add_prefix(tiny_gpt2(), 2)), "is a prefix, which is no change of weights"),
    (lambda: minipoet.save_adapter(minipoet.add_prefix(tiny_gpt2().to("meta"), 2), "m"), "on the meta device"),
    (lambda: minipoet.remove_prefix(None), "must be a language model, got None"),
    (lambda: prefix_mass(tiny_gpt2(), [[1]]), "No prefix is in use on this model"),
    (lambda: prefix_mass(minipoet.add_prefix(tiny_gpt2(), 2), []), "There must be texts to look at the attention on"),
    # models on the hub
    (lambda: minipoet.load("https://huggingface.co/a/b"), "There is no folder 'https://huggingface.co/a/b'"),
    (lambda: minipoet.load("owner/model "), "cannot be the id of a model on the hub"),
    # large collections
    (lambda: read_stihi("nowhere.jsonl.zst"), "nowhere.jsonl.zst: cannot be read (No such file or directory)"),
    (lambda: read_stihi("nowhere", first=0), "first must be a whole number of poems, at least 1, or None for all"),
    (lambda: VerseFilter(5, 3), "nothing can be kept with characters from 5 to 3"),
    (lambda: split_by_poem(["а"]), "The poems must be a list of Poem(text), but number 0 of it is"),
    (lambda: tokenized(CHARS, [Poem("а")]), "The texts must be a list of strings, but number 0 of it is Poem"),
    (lambda: tokenized(tiny_gpt2(), ["a"]), "The tokenizer must be one of minipoet's, got GPT2"),
    (lambda: tokenized(CHARS, []), "There is no text to make tokens of"),
    # how good it is, and how sure that is
    (lambda: chrf("а", ["а"]), "hypotheses must be a list of strings, got one string"),
    (lambda: chrf(["а", "б"], ["а"]), "Each hypothesis needs its reference, but there are 2 and 1"),
    (lambda: chrf([], []), "no text to compare"),
    (lambda: sentence_chrf(["а"], ["а"]), "chrf takes a list of them"),
    (lambda: mean_of([1]).interval(), "One text tells nothing"),
    (lambda: mean_of([1, 2]).interval(95), "between 0 and 1, as 0.95 is"),
    (lambda: compare(mean_of([1, 2]), mean_of([1, 2, 3])), "the same texts, but there are 2 and 3"),
    (lambda: ratio_of([1, 2], [0, 0]), "not all of them 0"),
    (lambda: wilson(11, 10), "hits of 0 to n"),
    (lambda: verse_form(None), "The text must be a string, got None"),
    (lambda: first_lines("а", 0, True), "Expected whole numbers of at least 1, got length=0"),
    (lambda: openings("а"), "The texts must be a list of strings, got one string"),
    (lambda: openings(["а\nб"]), "there is nothing to go on from"),
    (lambda: distinct("а"), "The texts must be a list of strings, got one string"),
    (lambda: copied_words(["а"], "а"), "must be a list of texts, got one string"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_gets_its_sentence_from_us_and_leaves_nothing(mistake, words, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("Вьюга\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)) as error:
        mistake()
    message = str(error.value)
    assert words in message
    assert "\n" not in message
    assert PACKAGE in Path(error.traceback[-1].path).parents
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {"a.txt", "config.json"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_gpu_that_is_not_there_is_told_before_anything_is_read():
    for load in (minipoet.load, load_model):
        with pytest.raises(ValueError, match=r"The device 'cuda' cannot be used here .*: 'cpu' always can"):
            load("nowhere/at-all", device="cuda")


@pytest.mark.parametrize("device", ["cpu", "meta", torch.device("cpu")])
def test_a_device_that_is_there_is_fine(device):
    assert as_device(device) == torch.device(device)


class Interrupted:
    """Batches during the fifth of which somebody presses Ctrl-C."""

    def batch(self, step):
        if step == 4:
            raise KeyboardInterrupt
        return tiny_batches().batch(step)


def test_an_interrupted_run_can_be_read_and_resumed_in_a_folder_of_any_name(tmp_path):
    folder = tmp_path / "мой прогон №1" / "второй раз"
    settings = TrainSettings(steps=6, save_every=3, precision="fp32")
    with pytest.raises(KeyboardInterrupt):
        run(str(folder), batches=Interrupted(), settings=settings)
    assert [event["step"] for event in read_history(folder / "history.jsonl").events] == [1, 2, 3, 4]
    assert load_last_weights(folder / "last.safetensors", tiny_gpt2()) == 3
    history = run(folder, settings=settings, resume=True)
    assert [event["step"] for event in history.events] == [1, 2, 3, 4, 5, 6]
    assert read_history(folder / "history.jsonl").events == history.events


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX locks")
def test_two_runs_do_not_write_to_one_folder(tmp_path):
    with alone(tmp_path), pytest.raises(ValueError, match=r"Another run is writing to .*choose another folder"):
        run(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_full_disk_is_told_by_the_history_too():
    with pytest.raises(OSError, match=r"Could not write /dev/full: No space left on device; free some space"):
        History("/dev/full").add(step=1)


def test_a_packed_row_may_be_longer_than_the_context_when_no_text_is(tmp_path):
    batches = Batches(random_texts(20, longest=CONTEXT), 3 * CONTEXT, 2)
    assert run(tmp_path, batches=batches).events[-1]["step"] == 6


def test_training_anew_over_an_unfinished_base_keeps_its_vocabulary(tmp_path, monkeypatch):
    run(tmp_path, stop_after=2)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["train_poet_tiny.py", "--data", "nowhere", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="holds an unfinished run"):
        runpy.run_path(str(EXAMPLE))["main"]()
    assert (tmp_path / "tokenizer.json").read_text(encoding="utf-8") == "{}"
