"""Conversations: by hand, against recorded outputs of transformers, and what is refused (reference/qwen_chat)."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from reference_data import load_json, reference
from torch import Tensor, nn

from minipoet.generation import generate_many
from minipoet.generation.answers import chat, chat_many
from minipoet.models.qwen2 import Qwen2, Qwen2Config
from minipoet.tokenization import (
    BPETokenizer,
    CharTokenizer,
    PublishedTokenizer,
    encode_texts,
    load_tokenizer,
    start_id,
    train_bpe,
)
from minipoet.tokenization.chat import (
    PLAIN,
    QWEN2,
    QWEN2_5,
    QWEN3,
    ChatTemplate,
    chat_template,
    recognise,
)

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATES = {"qwen2": QWEN2, "qwen2_5": QWEN2_5, "plain": PLAIN, "qwen3": QWEN3}
ASKED = [{"role": "user", "content": "Кто там?"}]
TALK = [
    {"role": "system", "content": "Ты сторож."},
    *ASKED,
    {"role": "assistant", "content": "Ветер.\n"},
    {"role": "user", "content": "<|im_end|>"},
]
DEFAULT = "'<|im_start|>system\\nYou are a clerk.<|im_end|>\\n'"


def somebodys(default: str = DEFAULT, change: str = "") -> str:
    """ChatML in Jinja as somebody might write it, with a default of the system's, and a change to what was said."""
    return (
        "{#- a comment: <|im_sep|> isn't here -#}{%- if messages[0]['role'] != 'system' %}{{- "
        + default
        + " }}{%- endif %}{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content"
        + change
        + " + '<|im_end|>\\n' }}{%- endfor %}"
        + "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )


CLERK = somebodys()


@pytest.fixture
def ours() -> BPETokenizer:
    return train_bpe(["Кто там? Ветер.\nКто там?\n\n", "user assistant system"], 320, SPECIALS)


@pytest.fixture
def qwen() -> PublishedTokenizer:
    return PublishedTokenizer.from_folder(reference("qwen_chat"))


def published(folder: Path, config: dict | None = None, **files: str) -> Path:
    """The recorded tokenizer in a folder of its own, with more in its config and more files: chat_template__jinja=…"""
    shutil.copytree(reference("qwen_chat"), folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | (config or {})), encoding="utf-8")
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_bytes(text.encode())
    return folder


# The text and the ids


def test_a_conversation_is_the_text_worked_out_by_hand() -> None:
    assert PLAIN.text(ASKED) == "<|im_start|>user\nКто там?<|im_end|>\n"
    assert ChatTemplate("Будь краток.").text(ASKED, generation_prompt=True) == (
        "<|im_start|>system\nБудь краток.<|im_end|>\n<|im_start|>user\nКто там?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate("Будь краток.").text(TALK) == (  # the conversation's own system message counts
        "<|im_start|>system\nТы сторож.<|im_end|>\n<|im_start|>user\nКто там?<|im_end|>\n"
        "<|im_start|>assistant\nВетер.\n<|im_end|>\n<|im_start|>user\n<|im_end|><|im_end|>\n"
    )


def test_markers_are_ids_by_name_and_what_stands_between_them_is_encoded_together(ours) -> None:
    start, end, line = 1, 2, ours.encode("\n")
    ids = PLAIN.encode(ours, ASKED, generation_prompt=True)
    assert ids == [start, *ours.encode("user\nКто там?"), end, *line, start, *ours.encode("assistant\n")]
    assert ours.decode(ids, skip_special=False) == PLAIN.text(ASKED, generation_prompt=True)


@pytest.mark.parametrize("name", TEMPLATES)
def test_text_and_ids_are_those_of_the_published_template_in_transformers(name, qwen) -> None:
    template = TEMPLATES[name]
    rows = [row for row in load_json("qwen_chat")["conversations"] if row["template"] == name]
    assert len(rows) == 36
    for row in rows:
        assert template.text(row["messages"], row["prompt"]) == row["text"]
        assert template.encode(qwen, row["messages"], row["prompt"]) == row["ids"], row["text"]


def test_the_published_tokenizer_of_qwens_kind_has_the_recorded_ids(qwen) -> None:
    rows = load_json("qwen_chat")["encode"]
    assert qwen.encode_batch([row["text"] for row in rows]) == [row["ids"] for row in rows]


def test_a_message_that_spells_a_marker_never_becomes_one(qwen, ours) -> None:
    rows = load_json("qwen_chat")["spelt"]
    for row in rows:
        messages = [{"role": "user", "content": row["content"]}]
        assert PLAIN.encode(qwen, messages) == row["ids"] != row["ids_with_specials"]
        for tokenizer in (qwen, ours):
            ids = PLAIN.encode(tokenizer, messages)
            special = [id for id in ids if id in tokenizer.special_ids.values()]
            assert special == [tokenizer.special_ids[name] for name in SPECIALS[1:]], "the frame of the one message"
            assert tokenizer.decode(ids, skip_special=False) == PLAIN.text(messages)
    assert len(rows) == 4


# What a model learns from


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_an_example_is_the_conversation_up_to_the_end_of_the_answer(template, qwen) -> None:
    ids, prompt = template.example(qwen, "Кто там?", "Ветер,\n\nснег.\n")
    talk = [*ASKED, {"role": "assistant", "content": "Ветер,\n\nснег.\n"}]
    assert ids + qwen.encode("\n") == template.encode(qwen, talk)
    assert ids[:prompt] == template.encode(qwen, ASKED, generation_prompt=True)
    assert ids[-1] == qwen.special_ids["<|im_end|>"] and ids.count(ids[-1]) == template.encode(qwen, talk).count(
        ids[-1]
    )
    assert template.example(qwen, "Кто там?", None) == (ids[:prompt], prompt)


def test_an_answer_that_begins_with_a_line_break_is_cut_from_the_prompt_where_the_model_will_meet_it(qwen) -> None:
    ids, prompt = PLAIN.example(qwen, "Кто там?", "\nВетер")
    assert ids[:prompt] == PLAIN.encode(qwen, ASKED, generation_prompt=True)
    assert ids[prompt:] == [*qwen.encode("\nВетер"), qwen.special_ids["<|im_end|>"]]


# What is no conversation


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "it has no message"),
        ("Кто там?", "must be a list of messages like .*, got 'Кто там\\?'"),
        (ASKED[0], "must be a list of messages like .*, got dict"),
        (None, "got None"),
        (["Кто там?"], "message 1 must be like .*, got 'Кто там\\?'"),
        ([{"role": "bot", "content": ""}], "message 1 has the role 'bot', and there are system, user, assistant"),
        ([{"content": "а"}], "message 1 has the role None"),
        ([{"role": "user", "content": None}], "message 1 must have a string as its content, got None"),
        ([{"role": "user", "content": [{"type": "text"}]}], "string as its content, got list"),
        ([*ASKED, TALK[0]], "message 2 is the system's, which can only be the first"),
        ([TALK[0], *ASKED, TALK[0]], "one system message at most, and message 3 is another"),
        ([ASKED[0] | {"name": "а", "tool_calls": []}], "message 1 has name, tool_calls, and only role and content"),
    ],
)
def test_what_is_no_conversation_is_refused_in_words(messages, said, ours) -> None:
    with pytest.raises(ValueError, match=said):
        PLAIN.text(messages)
    with pytest.raises(ValueError, match=said):
        PLAIN.encode(ours, messages)


def test_all_that_is_wrong_with_a_conversation_is_told_at_once() -> None:
    with pytest.raises(ValueError) as error:
        PLAIN.text([{"role": "bot", "content": 3}, *ASKED, TALK[0], TALK[0]])
    for part in ("message 1 has the role", "message 1 must have", "message 3 is the system's", "message 4 is another"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "assistant", "content": "<think>а</think>б"}, "message 1 has a thought in it"),
        ({"role": "user", "content": "<tool_response>а</tool_response>"}, "message 1 is the answer of a tool"),
    ],
)
def test_what_only_qwen3s_template_treats_apart_is_refused_there_alone(message, said) -> None:
    with pytest.raises(ValueError, match=said):
        QWEN3.text([message])
    assert message["content"] in PLAIN.text([message])


def test_a_template_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="default system message must be a string or None, got 3"):
        ChatTemplate(3)


# Which template a folder has


@pytest.mark.parametrize(
    ("text", "template"),
    [
        (CLERK, ChatTemplate("You are a clerk.")),
        (somebodys(DEFAULT.replace("a clerk", QWEN2.system[8:-1])), QWEN2),
        (somebodys(DEFAULT.replace("You are a clerk.", QWEN2_5.system)), QWEN2_5),
        (somebodys("''"), PLAIN),
        (somebodys("''") + "{% if tools %}{{ 'What you may call stands here: <tools>' }}{% endif %}", PLAIN),
        (somebodys(DEFAULT.replace("'", '"').replace("a clerk", "the \\'tool\\'")),
         ChatTemplate("You are the 'tool'.")),
    ],
    ids=["clerk", "qwen2", "qwen2_5", "plain", "tools", "quotes"],
)  # fmt: skip
def test_a_template_is_known_by_what_it_contains(text, template) -> None:
    assert recognise(text) == template


@pytest.mark.parametrize("system", [None, "", "Ты", "Ты \"поэт\" и 'поэт' \\ \\n\n{{ 1 }} {% x %} {# y #} 🦉 й"])
def test_a_template_that_we_write_down_is_known_again(system) -> None:
    assert recognise(ChatTemplate(system).jinja) == ChatTemplate(system)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (somebodys("bos_token"), "it has 'bos_token'"),
        (somebodys("''", " | trim"), "it has 'trim'"),
        (somebodys("''", ".strip()"), "it has 'strip'"),
        (somebodys("''", " + '<|im_sep|>'"), "it has '<|im_sep|>'"),
        (somebodys("''", " + ' Think step by step.'"), "it has ' Think step by step.'"),
        (somebodys(DEFAULT + " or " + DEFAULT.replace("clerk", "cook")), "it has '<|im_start|>system\\nYou are a"),
        (
            CLERK.replace("<|im_start|>assistant\\n", "<|im_start|>bot\\n"),
            "has no lines <|im_start|>assistant and <|im_end|>",
        ),
        (somebodys("''").replace("<|im_end|>\\n", "<|im_end|>"), "has no lines <|im_start|>assistant and <|im_end|>"),
        ("{{ messages }}", "has no lines <|im_start|>assistant and <|im_end|>"),
        ("", "has no lines <|im_start|>assistant and <|im_end|>"),
    ],
)
def test_a_template_that_says_something_else_is_not_known(text, said) -> None:
    with pytest.raises(ValueError, match="not one that minipoet knows") as error:
        recognise(text)
    assert said in str(error.value)


def test_a_folder_says_its_template_in_any_of_the_places_in_use(tmp_path) -> None:
    named = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": CLERK}]
    clerk = ChatTemplate("You are a clerk.")
    for number, (config, files) in enumerate(
        [
            ({"chat_template": CLERK}, {}),
            ({"chat_template": named}, {}),
            ({}, {"chat_template__jinja": CLERK}),
            ({"chat_template": PLAIN.jinja}, {"chat_template__jinja": CLERK}),  # the file counts, as in transformers
            ({}, {"chat_template__json": json.dumps({"chat_template": CLERK})}),
        ]
    ):
        folder = published(tmp_path / str(number), config, **files)
        assert ChatTemplate.of_folder(folder) == clerk
        assert chat_template(load_tokenizer(folder)) == clerk
    with pytest.raises(ValueError, match="has no chat template"):
        ChatTemplate.of_folder(reference("qwen_chat"))


def test_a_model_with_an_unknown_template_loads_and_is_refused_when_it_is_asked_to_talk(tmp_path) -> None:
    tokenizer = load_tokenizer(published(tmp_path / "unknown", chat_template__jinja="{{ cycler.__init__ }}"))
    assert tokenizer.chat is None and tokenizer.encode("а")
    with pytest.raises(ValueError, match="not one that minipoet knows .* say tokenizer.chat = "):
        chat_template(tokenizer)
    tokenizer.chat = PLAIN
    assert chat_template(tokenizer) == PLAIN


def test_a_tokenizer_without_markers_or_without_a_template_says_so(ours) -> None:
    with pytest.raises(ValueError, match=r"no chat form: its tokenizer lacks <\|im_start\|> and <\|im_end\|> .* <pad>"):
        chat_template(CharTokenizer.from_texts(["а"]))
    with pytest.raises(ValueError, match=r"lacks <\|im_end\|> \(its special tokens are <\|im_start\|>\)"):
        PLAIN.encode(train_bpe(["а"], 257, ["<|im_start|>"]), ASKED)
    with pytest.raises(ValueError, match="names no chat template"):
        chat_template(ours)
    with pytest.raises(ValueError, match="must be one of minipoet's, got None"):
        chat_template(None)


def test_a_template_that_is_no_text_is_named(tmp_path) -> None:
    folder = published(tmp_path / "broken")
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"chat_template\.jinja is no UTF-8 text"):
        load_tokenizer(folder)


# What is saved


def test_a_published_template_is_saved_as_it_was(tmp_path) -> None:
    text = CLERK.replace("-#}", "-#}\r\n")
    load_tokenizer(published(tmp_path / "file", chat_template__jinja=text)).save(tmp_path / "saved")
    assert (tmp_path / "saved" / "chat_template.jinja").read_bytes() == text.encode()

    named = [{"name": "default", "template": CLERK}, {"name": "tool_use", "template": "{{ 1 }}"}]
    load_tokenizer(published(tmp_path / "config", {"chat_template": named})).save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "chat_template.jinja").exists(), "it would count, and is another model's"
    assert json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())["chat_template"] == named


def test_a_template_that_was_set_is_saved_instead_of_the_published_one(tmp_path) -> None:
    tokenizer = load_tokenizer(published(tmp_path / "published", {"chat_template": CLERK}))
    tokenizer.chat = QWEN2
    tokenizer.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").chat == QWEN2


def test_our_own_tokenizer_keeps_its_template_and_its_ends(ours, tmp_path) -> None:
    ours.save(tmp_path)
    assert load_tokenizer(tmp_path).chat is None and load_tokenizer(tmp_path).eos_ids == [0]
    ours.chat, ours.more_eos = QWEN2, ["<|im_end|>"]
    (tmp_path / "chat_template.jinja").write_text(CLERK)  # another model's
    ours.save(tmp_path)
    back = load_tokenizer(tmp_path)
    assert isinstance(back, BPETokenizer)
    assert (back.chat, back.eos_id, back.eos_ids) == (QWEN2, 0, [0, 2])
    again = BPETokenizer(ours.vocab, ours.merges, SPECIALS, more_eos=["<|im_end|>"], chat=QWEN2)
    again.save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").chat == QWEN2


def test_a_template_with_thoughts_cannot_be_written_down(ours, tmp_path) -> None:
    ours.chat = QWEN3
    with pytest.raises(ValueError, match="with thoughts cannot be written"):
        ours.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# What ends a text


def test_a_published_model_may_have_several_ends_and_keeps_them(qwen, tmp_path) -> None:
    assert (qwen.eos_id, qwen.eos_ids, qwen.more_eos) == (402, [402, 400], ["<|endoftext|>"])
    qwen.save(tmp_path)
    assert load_tokenizer(tmp_path).eos_ids == [402, 400]


@pytest.mark.parametrize(
    ("files", "ends"),
    [
        ({"generation_config.json": None}, [402]),
        ({"generation_config.json": [400, 402]}, [402, 400]),  # the eos by its name comes first
        ({"generation_config.json": 400}, [402]),  # one id is the eos by another name, if the config has none
        ({"generation_config.json": [402, 7, 9999, "а"]}, [402]),  # an ordinary token ends nothing
        ({"generation_config.json": None, "config.json": [402, 400]}, [402, 400]),
    ],
)
def test_ends_are_the_special_tokens_that_a_list_of_ids_names(files, ends, tmp_path) -> None:
    folder = published(tmp_path / "model")
    for name, ids in files.items():
        (folder / name).write_text(json.dumps({} if ids is None else {"eos_token_id": ids}))
    assert load_tokenizer(folder).eos_ids == ends


def test_an_end_that_is_no_special_token_is_refused(ours) -> None:
    with pytest.raises(ValueError, match="'конец' of more_eos is no special token"):
        BPETokenizer(ours.vocab, ours.merges, SPECIALS, more_eos=["конец"])


# Talking


class Script(nn.Module):
    """A head that says what stands in the script, one id a step; ids that may not be drawn give way to id 3."""

    def __init__(self, vocab_size: int, ids: list[int]) -> None:
        super().__init__()
        self.vocab_size, self.ids = vocab_size, iter(ids)

    def forward(self, states: Tensor) -> Tensor:
        logits = torch.zeros(*states.shape[:2], self.vocab_size)
        logits[..., 3], logits[..., next(self.ids)] = 50, 100
        return logits


def scripted(tokenizer: BPETokenizer, ids: list[int]) -> Qwen2:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2(Qwen2Config(vocab_size=330, num_key_value_heads=1, max_position_embeddings=200, **sizes)).eval()
    model.head = Script(330, ids)
    return model


def test_an_answer_ends_at_its_marker_which_is_no_part_of_it(ours) -> None:
    ours.chat = PLAIN
    said = ours.encode("Ветер.\n")
    (answer,) = chat_many(scripted(ours, [*said, 2, *said]), ours, ["Кто там?"], temperature=0)[0]
    assert (answer.continuation, answer.finish, answer.ids) == ("Ветер.\n", "end", tuple(said))
    assert answer.prompt == PLAIN.text(ASKED, generation_prompt=True)
    assert chat(scripted(ours, [*said, 0]), ours, "Кто там?", temperature=0) == "Ветер.\n"
    assert chat(scripted(ours, [*said, 2]), ours, TALK, temperature=0, stop="\n") == "Ветер."


def test_no_message_is_begun_within_an_answer(ours) -> None:
    ours.chat = PLAIN
    (answer,) = chat_many(scripted(ours, [1, 1, 2]), ours, ["Кто там?"], temperature=0)[0]
    assert answer.ids == (3, 3)


def test_a_poem_ends_at_any_of_the_ends_and_only_there(ours) -> None:
    (poem,) = generate_many(scripted(ours, [2, 2, 0]), ours, ["Кто"], temperature=0)[0]
    assert (poem.ids, poem.finish) == ((3, 3), "end"), "a marker is not drawn where it ends nothing"
    ours.more_eos = ["<|im_end|>"]
    for end in (0, 2):
        (poem,) = generate_many(scripted(ours, [5, end]), ours, ["Кто"], temperature=0)[0]
        assert (poem.ids, poem.finish) == ((5,), "end")


def test_answers_do_not_depend_on_their_neighbours(ours) -> None:
    ours.chat = PLAIN
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = Qwen2(
        Qwen2Config(vocab_size=320, num_key_value_heads=1, max_position_embeddings=200, initializer_range=0.3, **sizes)
    )
    talks = ["Кто?", TALK, ASKED]
    many = chat_many(model, ours, talks, samples=2, max_new_tokens=12, seed=5)
    assert [len(answers) for answers in many] == [2, 2, 2] and many[0][0].ids != many[0][1].ids
    for talk, answers in zip(talks, many, strict=True):
        for answer in answers:
            assert chat(model, ours, talk, max_new_tokens=12, seed=answer.seed) == answer.continuation


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (TALK[:3], "The last message must be the user's, who asks, and is the assistant's"),
        (TALK[:1], "and is the system's"),
        (" ", "The question is empty"),
        (3, "must be a list of messages"),
        ([], "it has no message"),
        ("а" * 200, "prompt 0 is .* tokens long, but this model reads at most 200"),
    ],
)
def test_what_cannot_be_answered_is_refused(messages, said, ours) -> None:
    ours.chat = PLAIN
    with pytest.raises(ValueError, match=said):
        chat(scripted(ours, []), ours, messages)


def test_several_conversations_are_refused_together(ours) -> None:
    ours.chat = PLAIN
    with pytest.raises(ValueError, match=r"Conversation 0: .* no message.* Conversation 2: .* role 'bot'"):
        chat_many(scripted(ours, []), ours, [[], "Кто?", [{"role": "bot", "content": ""}]])
    with pytest.raises(ValueError, match="got one conversation: put it into a list"):
        chat_many(scripted(ours, []), ours, ASKED)
    with pytest.raises(ValueError, match="must be a list of strings or of lists of messages, got 'Кто"):
        chat_many(scripted(ours, []), ours, "Кто там?")
    with pytest.raises(ValueError, match="max_new_token.*did you mean 'max_new_tokens'"):
        chat(scripted(ours, []), ours, "Кто там?", max_new_token=3)
    with pytest.raises(ValueError, match="must be a language model, got None"):
        chat(None, ours, "Кто там?")


def test_a_text_begins_behind_what_parts_texts_and_not_behind_what_ends_an_answer(qwen) -> None:
    assert qwen.bos_id is None and qwen.eos_id == qwen.special_ids["<|im_end|>"]
    assert start_id(qwen) == qwen.special_ids["<|endoftext|>"]
    assert encode_texts(qwen, ["да"])[0][0] == qwen.special_ids["<|endoftext|>"]
