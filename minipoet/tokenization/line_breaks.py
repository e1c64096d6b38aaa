"""Line breaks for tokenizers that eat them: a sentinel that the model has anyway stands for "\\n".

T5's tokenizer takes every run of white space for one space, so a poem comes back as one line. Its vocabulary ends with
a hundred sentinels, `<extra_id_99>` to `<extra_id_0>`, which stood for the gaps of the pre-training, the low numbers
first; the highest one was hardly met, or never. It has a row in the model, so nothing need grow:

    "Снег.\\n\\nТишина"  ->  [▁Снег, ., <extra_id_99>, <extra_id_99>, ▁Тишина]

    sentinel_names      the sentinels among some tokens, by number
    encode_lines        each line by the tokenizer, the marker between two
    decode_lines        the way back

Chapter: docs/unigram.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

LINE_BREAKS = "minipoet_line_breaks"  # in our tokenizer_config.json: false where line breaks are to be lost
# mT5's vocabulary has them with the space before them.
SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")


def sentinel_names(tokens: Iterable[str]) -> list[str]:
    """The sentinels among some tokens, `<extra_id_0>` first."""
    found = {int(match[1]): match[0] for token in tokens if (match := SENTINEL.fullmatch(token))}
    return [found[number] for number in sorted(found)]


def encode_lines(
    texts: Sequence[str], marker: int, encode: Callable[[list[str]], Sequence[list[int]]]
) -> list[list[int]]:
    """The ids of each text, with the marker for each line break. All lines of all texts go to `encode` in one call."""
    divided = [text.replace("\r\n", "\n").split("\n") for text in texts]
    known = iter(encode([line for lines in divided for line in lines]))
    rows = []
    for lines in divided:
        ids = list(next(known))
        for _ in lines[1:]:
            ids.append(marker)
            ids += next(known)
        rows.append(ids)
    return rows


def decode_lines(ids: Iterable[int], marker: int, decode: Callable[[list[int]], str]) -> str:
    """The text of some ids, in which the marker is a line break."""
    lines: list[list[int]] = [[]]
    for id in ids:
        if id == marker:
            lines.append([])
        else:
            lines[-1].append(id)
    return "\n".join(map(decode, lines))
