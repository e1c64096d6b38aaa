r"""A conversation as one text that a model can go on from: who speaks, what was said, whose turn it is.

    <|im_start|>user\nНапиши про осень<|im_end|>\n<|im_start|>assistant\n

    ChatTemplate    ChatML with a default system message: conversation -> text, ids, an example to learn from
    chat_template   the template that belongs to a loaded tokenizer

The markers are tokens of their own and reached by name; what people wrote is encoded apart from them. So a message
that spells `<|im_end|>` has these ten characters in it and ends nothing. A published template is a program in a
language of its own (Jinja): it is read, never run, and taken only if it says what is said here.

ChatML: OpenAI 2023; Qwen Team 2024, "Qwen2.5 Technical Report". Chapter: docs/chat.md
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minipoet.checks import as_path, expect, expect_tokenizer, shown
from minipoet.tokenization.roles import read_optional

if TYPE_CHECKING:
    from minipoet.tokenization.base import Tokenizer

Message = Mapping[str, str]  # {"role": one of ROLES, "content": what was said}

START, END = "<|im_start|>", "<|im_end|>"
CHAT_FILE = "chat_template.jinja"
ROLES = ("system", "user", "assistant")
NO_THOUGHT = "<think>\n\n</think>\n\n"  # how a Qwen3 answer begins that was not thought about

# What a template may not have if it is to be ChatML and nothing else: other markers, and changes to what was said.
_FOREIGN = re.compile(
    r"<\|(?!im_start\||im_end\|)[^|]*\|>|\b(?:bos_token|eos_token|[lr]?strip|trim|replace|upper|lower|capitalize|title"
    r"|strftime_now|think)\b"
)
# What it must have: where an answer begins, and how a message ends.
_ANSWER = re.compile(r"<\|im_start\|>assistant(?:\\n|\n)")
_LINE_AFTER = re.compile(r"<\|im_end\|>(?:['\"]\s*[+~]\s*['\"])?(?:\\n|\n)")
_NOT_SAID = re.compile(r"\{#.*?#\}|raise_exception\([^)]*\)", re.DOTALL)
_LITERAL = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_SENTENCE = re.compile(r"\w+ \w+ \w+")
_QWEN3 = ("enable_thinking is false", "loop.last or (not loop.last and reasoning_content)")


@dataclass(frozen=True)
class ChatTemplate:
    """ChatML, and what one family has of its own.

    system: what the system is told to be if the conversation does not say it; None: nothing.
    no_thought: the last answer begins with an empty thought, as Qwen3 is asked not to think aloud.
    """

    system: str | None = None
    no_thought: bool = False

    def __post_init__(self) -> None:
        expect(self.system, (str, type(None)), "The default system message", "a string or None")
        expect(self.no_thought, bool, "no_thought", "True or False")

    @classmethod
    def of_folder(cls, folder: str | PathLike[str]) -> ChatTemplate:
        """The template of a model's folder, known by what it contains. Raises ValueError for none or an unknown one."""
        text = folder_template(as_path(folder, "The folder of a model"))
        if text is None:
            raise ValueError(f"{folder} has no chat template: its model was not taught to talk, or it is lost.")
        return recognise(text)

    def text(self, messages: Sequence[Message], generation_prompt: bool = False) -> str:
        """The conversation as one text; with generation_prompt it ends where the assistant's answer begins.

        Raises ValueError, with all that is wrong at once, for what is no conversation.
        """
        return "".join(self._pieces(messages, generation_prompt))

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Message], generation_prompt: bool = False) -> list[int]:
        """The ids of that text: the markers by name, what stands between them as plain text. Errors as for `text`."""
        markers = marker_ids(tokenizer)
        pieces = self._pieces(messages, generation_prompt)
        ids: list[int] = []
        # Markers and plain texts take turns, beginning with a marker.
        for marker, plain in zip(pieces[::2], tokenizer.encode_batch(pieces[1::2]), strict=True):
            ids += [markers[marker], *plain]
        return ids

    def example(self, tokenizer: Tokenizer, prompt: str, completion: str | None) -> tuple[list[int], int]:
        """What a model learns from: the ids of a user's prompt and the answer to it, and how many are the prompt.

        The prompt reaches to where the answer begins, the answer to its `<|im_end|>`. They are encoded apart, as the
        model will meet them. completion None: the prompt alone.
        """
        expect(completion, (str, type(None)), "The completion", "a string or None")
        ids = self.encode(tokenizer, [{"role": "user", "content": prompt}], generation_prompt=True)
        if completion is None:
            return ids, len(ids)
        if self.no_thought:
            completion = completion.lstrip("\n")
        return [*ids, *tokenizer.encode(completion), marker_ids(tokenizer)[END]], len(ids)

    @property
    def jinja(self) -> str:
        """The same template in the language that other programs read. Raises ValueError for one with no_thought."""
        if self.no_thought:
            raise ValueError("A template with thoughts cannot be written down: use one without, ChatTemplate(system).")
        default = ""
        if self.system is not None:
            turn = json.dumps(f"{START}system\n{self.system}{END}\n", ensure_ascii=False).replace("{", "\\u007b")
            default = f"{{% if messages[0].role != 'system' %}}{{{{ {turn} }}}}{{% endif %}}"
        return (
            f"{default}{{% for m in messages %}}{{{{ '{START}' + m.role + '\\n' + m.content + '{END}\\n' }}}}"
            f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '{START}assistant\\n' }}}}{{% endif %}}"
        )

    def _pieces(self, messages: Sequence[Message], generation_prompt: bool) -> list[str]:
        """The text cut at its markers: START, "user\\n…", END, "\\n", START, …"""
        turns = [(message["role"], message["content"]) for message in check_conversation(messages, self.no_thought)]
        if self.system is not None and turns[0][0] != "system":
            turns.insert(0, ("system", self.system))
        if self.no_thought and turns[-1][0] == "assistant" and any(role == "user" for role, _ in turns):
            turns[-1] = ("assistant", NO_THOUGHT + turns[-1][1].lstrip("\n"))
        pieces = [piece for role, content in turns for piece in (START, f"{role}\n{content}", END, "\n")]
        if generation_prompt:
            pieces += [START, "assistant\n" + NO_THOUGHT * self.no_thought]
        return pieces


PLAIN = ChatTemplate()
QWEN2 = ChatTemplate("You are a helpful assistant.")
QWEN2_5 = ChatTemplate("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
QWEN3 = ChatTemplate(no_thought=True)


def chat_template(tokenizer: Tokenizer) -> ChatTemplate:
    """The template of a loaded tokenizer, `tokenizer.chat`. Raises ValueError if there is none, or an unknown one."""
    marker_ids(tokenizer)
    if tokenizer.chat is not None:
        return tokenizer.chat
    if tokenizer.chat_text is not None:
        return recognise(tokenizer.chat_text)
    raise ValueError(
        "This model's tokenizer knows the markers of a conversation, but names no chat template: if the model learnt "
        "plain ChatML, say tokenizer.chat = minipoet.tokenization.PLAIN."
    )


def marker_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of the markers. Raises ValueError for a tokenizer that lacks them: its model has no chat form."""
    expect_tokenizer(tokenizer)
    ids = tokenizer.special_ids
    if missing := [name for name in (START, END) if name not in ids]:
        raise ValueError(
            f"This model has no chat form: its tokenizer lacks {' and '.join(missing)} (its special tokens are "
            f"{', '.join(ids) or 'none'}). Go on from a text with minipoet.generate, or load a model that was taught "
            "to talk."
        )
    return {name: ids[name] for name in (START, END)}


def check_conversation(messages: Any, no_thought: bool = False) -> list[Message]:
    """The messages as a list. Raises one ValueError for all that keeps them from being a conversation."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise ValueError(
            "A conversation must be a list of messages like {'role': 'user', 'content': 'Напиши про осень'}, got "
            f"{shown(messages)}."
        )
    wrong = [] if messages else ["it has no message"]
    for number, message in enumerate(messages, start=1):
        wrong += [f"message {number} {problem}" for problem in _problems(message, number, no_thought)]
    systems = [n for n, m in enumerate(messages, start=1) if isinstance(m, Mapping) and m.get("role") == "system"]
    if systems and systems[0] != 1:
        wrong.append(f"message {systems[0]} is the system's, which can only be the first")
    if len(systems) > 1:
        wrong.append(f"there is one system message at most, and message {', '.join(map(str, systems[1:]))} is another")
    if wrong:
        raise ValueError(f"This is no conversation that can be told: {'; '.join(wrong)}.")
    return list(messages)


def _problems(message: Any, number: int, no_thought: bool) -> list[str]:
    if not isinstance(message, Mapping):
        return [f"must be like {{'role': 'user', 'content': '…'}}, got {shown(message)}"]
    role, content = message.get("role"), message.get("content")
    wrong = []
    if role not in ROLES:
        wrong.append(f"has the role {shown(role)}, and there are {', '.join(ROLES)}")
    if not isinstance(content, str):
        wrong.append(f"must have a string as its content, got {shown(content)}")
    elif no_thought and role == "assistant" and "</think>" in content:
        wrong.append("has a thought in it (</think>), and only answers without are supported")
    elif no_thought and content.startswith("<tool_response>") and content.endswith("</tool_response>"):
        wrong.append("is the answer of a tool (<tool_response>), which is not supported")
    if strangers := [str(key) for key in message if key not in ("role", "content")]:
        wrong.append(f"has {', '.join(strangers)}, and only role and content are supported")
    return wrong


def folder_template(folder: Path) -> str | None:
    """The text of the chat template in a folder, None if there is none. Raises ValueError for a broken file."""
    path = folder / CHAT_FILE
    if path.is_file():
        try:
            return path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no UTF-8 text ({error}); fetch it again.") from error
    config = read_optional(folder, "tokenizer_config.json")
    return template_of(config) or template_of(read_optional(folder, "chat_template.json"))


def template_of(config: Mapping[str, Any]) -> str | None:
    """The chat template in the content of a config: a text, or of several that have names the one named "default"."""
    value = config.get("chat_template")
    if isinstance(value, list):
        value = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
    if isinstance(value, dict):
        value = value.get("default")
    return value if isinstance(value, str) else None


def written_template(tokenizer: Tokenizer) -> str | None:
    """What `save` writes: the published text, unless `tokenizer.chat` was set to say something else."""
    if tokenizer.chat is None or known_template(tokenizer.chat_text) == tokenizer.chat:
        return tokenizer.chat_text
    return tokenizer.chat.jinja


def known_template(text: str | None) -> ChatTemplate | None:
    """The template that a published text is; None for none and for one that is not known."""
    try:
        return None if text is None else recognise(text)
    except ValueError:
        return None


def recognise(template: str) -> ChatTemplate:
    """The template that a published one is, by what it contains. Raises ValueError for one that is not known."""
    template = _NOT_SAID.sub("", template)
    no_thought = all(mark in template for mark in _QWEN3)
    strange = [match[0] for match in _FOREIGN.finditer(template)] if not no_thought else []
    # What it says by itself may be a default of the system's, and how tools are called, which nobody asks for here.
    said = {_unescaped(single or double) for single, double in _LITERAL.findall(template)}
    before, after = f"{START}system\n", f"{END}\n"
    defaults = {text for text in said if text.startswith(before) and text.endswith(after)}
    strange += [
        text
        for text in sorted(said - defaults)
        if _SENTENCE.search(text) and "tools>" not in text and before + text + after not in defaults
    ]
    strange += sorted(defaults) if len(defaults) > 1 else []
    if strange or not (_ANSWER.search(template) and _LINE_AFTER.search(template)):
        why = f"it has {shown(strange[0])}" if strange else f"it has no lines {START}assistant and {END}"
        raise ValueError(
            f"This model's chat template is not one that minipoet knows (ChatML as Qwen2, Qwen2.5 and Qwen3 have it): "
            f"{why}. A template is never run; if you know that the model learnt plain ChatML, say "
            "tokenizer.chat = minipoet.tokenization.PLAIN."
        )
    system = defaults.pop().removeprefix(before).removesuffix(after) if defaults else None
    return ChatTemplate(system, no_thought)


def _unescaped(literal: str) -> str:
    """A literal of Jinja's as it is meant."""
    return codecs.decode(literal.encode("ascii", "backslashreplace"), "unicode-escape", "replace")
