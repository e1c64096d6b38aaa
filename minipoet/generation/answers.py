"""Talking with a model: a conversation in, its answer out.

    chat         one conversation, or one question -> the text of the answer
    stream_chat  the same, piece by piece while it is written
    chat_many    several, several answers to each -> Generated: continuation is the answer

What the model reads is the conversation in the form that it learnt (`tokenizer.chat`), up to where its answer begins.
The answer ends with `<|im_end|>`, or with whatever else ends a text; neither is part of it.

Chapter: docs/chat.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from minipoet.checks import shown
from minipoet.generation.poems import Generated, as_settings, endings, expect_pair, pieces, write_all
from minipoet.generation.prompts import check_prompts
from minipoet.models.base import LanguageModel
from minipoet.tokenization.base import Tokenizer
from minipoet.tokenization.chat import END, ChatTemplate, Message, chat_template

Conversation = str | Sequence[Message]  # a string is what the user asks


def chat(model: LanguageModel, tokenizer: Tokenizer, messages: Conversation, **settings: Any) -> str:
    """The model's answer to a question, or to a conversation whose last message is the user's.

    messages: a string, or a list of {"role": "system", "user" or "assistant", "content": …}; to go on, add the answer
    and the next question to the list. settings: the fields of `SamplingSettings`; max_new_tokens=80 is some ten lines.
    Raises ValueError for a model that has no chat form, and for what is no conversation or too long a one.
    """
    options = as_settings(settings)  # samples and batch_size are none
    return chat_many(model, tokenizer, [messages], **asdict(options))[0][0].continuation


def stream_chat(model: LanguageModel, tokenizer: Tokenizer, messages: Conversation, **settings: Any) -> Iterator[str]:
    """The answer of `chat` in pieces of whole letters, each as soon as it is certain. Arguments and errors as there."""
    options = as_settings(settings)
    template = _template(model, tokenizer)
    (messages,) = _conversations([messages], template)
    ids = template.encode(tokenizer, messages, generation_prompt=True)
    check_prompts(model, [ids])
    return pieces(model, tokenizer, "", ids, options, _ends_of_an_answer(tokenizer))


def chat_many(
    model: LanguageModel,
    tokenizer: Tokenizer,
    conversations: Sequence[Conversation],
    *,
    samples: int = 1,
    batch_size: int = 32,
    adapters: Sequence[str | None] | None = None,
    **settings: Any,
) -> list[list[Generated]]:
    """`samples` answers to each conversation, a list a conversation, always.

    Of a `Generated` the prompt is the conversation as one text, the continuation the answer. adapters: the name of the
    adapter that answers each conversation, None for the plain base. Seeds, other arguments and errors as for
    `generate_many` and `chat`.
    """
    options = as_settings(settings)
    template = _template(model, tokenizer)
    conversations = _conversations(conversations, template)
    texts = [template.text(messages, generation_prompt=True) for messages in conversations]
    ids = [template.encode(tokenizer, messages, generation_prompt=True) for messages in conversations]
    ends = _ends_of_an_answer(tokenizer)
    return write_all(model, tokenizer, texts, ids, options, samples, batch_size, adapters, ends)


def _template(model: LanguageModel, tokenizer: Tokenizer) -> ChatTemplate:
    """The form in which the model talks. Raises ValueError for one that does not."""
    expect_pair(model, tokenizer)
    if model.reads_source:
        raise ValueError(f"A {type(model).__name__} writes about a source and does not talk: give it to generate.")
    return chat_template(tokenizer)


def _conversations(conversations: Any, template: ChatTemplate) -> list[Sequence[Message]]:
    """The conversations as lists of messages. Raises one ValueError for all that cannot be answered."""
    one = isinstance(conversations, Sequence) and any(isinstance(messages, Mapping) for messages in conversations)
    if one or isinstance(conversations, str) or not isinstance(conversations, Sequence):
        what = "one conversation: put it into a list" if one else shown(conversations)
        raise ValueError(f"The conversations must be a list of strings or of lists of messages, got {what}.")
    asked, wrong = [], []
    for number, messages in enumerate(conversations):
        try:
            if isinstance(messages, str):
                if not messages.strip():
                    raise ValueError("The question is empty: say what is wanted.")
                messages = [{"role": "user", "content": messages}]
            template.text(messages)
            if (last := messages[-1]["role"]) != "user":
                raise ValueError(f"The last message must be the user's, who asks, and is the {last}'s.")
        except ValueError as error:
            wrong.append(str(error) if len(conversations) == 1 else f"Conversation {number}: {error}")
        asked.append(messages)
    if wrong:
        raise ValueError(" ".join(wrong))
    return asked


def _ends_of_an_answer(tokenizer: Tokenizer) -> dict[str, Any]:
    """As for a poem, and the marker at which a message ends."""
    ends, end = endings(tokenizer), tokenizer.special_ids[END]
    banned = [id for id in ends["banned"] if id != end]
    return ends | {"eos_ids": [*ends["eos_ids"], end], "banned": banned}
