"""`minipoet write`: a poem from its first words, shown while it is written.

The poem goes to standard output, and nothing else does; seeds and notes go to standard error. Variants are written one
after another, each alone, so that each is, letter for letter, what its seed gives with `--variants 1`.
Chapter: docs/command.md
"""

from __future__ import annotations

import argparse
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch

from minipoet import api
from minipoet.adapters import load_adapter, lora_layers, merge_lora
from minipoet.command import folders, show, tell
from minipoet.command.units import DTYPES
from minipoet.generation import SamplingSettings, poem_seed, stream, stream_chat
from minipoet.models import LanguageModel, pack_weights
from minipoet.quantization import few_bit_layers, pack_for_speed
from minipoet.text.clean import unify_characters
from minipoet.tokenization import Tokenizer

BASE = "poet-tiny"
LUCKY = 1_000_000  # a seed of our own choice is below: short enough to be typed again
BETWEEN = "\n* * *\n"  # three stars stand over a poem without a title
OPTIONS = {field.name: f"--{field.name.replace('_', '-')}" for field in fields(SamplingSettings)}
OPTIONS["max_new_tokens"] = "--tokens"

EXAMPLES = r"""
examples:
  minipoet write "Мороз и солнце"
  minipoet write "Над тихою рекою\n" --adapter runs/lora_pushkin
  minipoet write "Мороз и солнце" --variants 3 --temperature 0.9 --stop "\n\n"
  minipoet write "Мороз и солнце" --seed 7 > poem.txt
  minipoet write < quatrain.txt
  minipoet write --ask "Напиши стихотворение про осень" --base poet-chat
  minipoet write "Мороз и солнце" --beams 4 --temperature 0

The poem goes on exactly where the prompt stops: in the line or, after a line
break, on the next one; a T5 writes about the prompt, and only that is shown.
A line break is typed as \n in quotes. The seed of each poem is told on standard
error; given again by --seed, with the same prompt, model and options, it gives
the same poem. More: docs/command.md
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """The options of the command."""
    parser = commands.add_parser(
        "write",
        help="a poem from its first words",
        description="Write a poem that begins with PROMPT, and show it while it is written.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(main=write, interrupted="what was written of the poem stays")
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="*",
        help='a word, a line or a stanza; "-", or nothing: all of standard input, as it is',
    )
    parser.add_argument(
        "--ask",
        action="store_true",
        help="PROMPT is a request to a model that was taught to talk: only its answer is shown",
    )
    add = parser.add_argument_group("the poet").add_argument
    add("--base", metavar="MODEL", help="poet-tiny, a folder, or an id on the Hugging Face hub "
        "(default: what the adapter was made for, else poet-tiny)")  # fmt: skip
    add("--adapter", metavar="FOLDER", help="a LoRA or a prefix to put on the base")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: cuda if it is there, else cpu)")
    add("--dtype", choices=DTYPES, help="type of the weights (default: the file's own, but fp32 for fp16 on a CPU)")
    add = parser.add_argument_group("the poems").add_argument
    add("--tokens", dest="max_new_tokens", metavar="N", type=int, default=SamplingSettings.max_new_tokens,
        help="new tokens, at most; a word of verse is one to three (default: %(default)s)")  # fmt: skip
    add("--stop", metavar="TEXT", action="append", default=[],
        help=r'end at this text, which is cut off: "\n\n" gives one stanza; may come several times')  # fmt: skip
    add("--variants", metavar="N", type=int, default=1, help="poems, one after another (default: %(default)s)")
    add("--seed", metavar="N", type=int, help="write the poem of this seed again (default: a new one)")
    add = parser.add_argument_group("the choice of each next word").add_argument
    for name, kind, text in (
        ("temperature", float, "below 1 the likely gets likelier, above 1 bolder; 0 always takes the likeliest"),
        ("top_p", float, "only the likeliest words that together have this probability; 1 is off"),
        ("top_k", int, "only the N likeliest words; 0 is off"),
        ("min_p", float, "only words with at least this share of the likeliest one's probability; 0 is off"),
        ("repetition_penalty", float, "above 1 avoids what is there already; 1 is off"),
        ("beams", int, "search for the likeliest text among N at a time, with --temperature 0; 1 is off"),
        ("length_penalty", float, "of a search: 0 is for short texts, 2 for long ones"),
    ):
        add(OPTIONS[name], metavar="X" if kind is float else "N", type=kind, default=getattr(SamplingSettings, name),
            help=f"{text} (default: %(default)s)")  # fmt: skip


def write(args: argparse.Namespace) -> None:
    """Run the command. All that can be known to be wrong before a model is loaded is told before."""
    prompt = read_prompt(args.prompt)
    settings = _settings(args)
    device = _device(args.device)
    model, tokenizer = _load(args.base, args.adapter, DTYPES.get(args.dtype), device)
    for number in range(args.variants):
        seed = poem_seed(settings.seed, sample=number)
        writer = stream_chat if args.ask else stream
        pieces = writer(model, tokenizer, prompt, **asdict(replace(settings, seed=seed)))
        if number:
            show(BETWEEN)
        tell(f"seed {seed}" + (f" (variant {number + 1} of {args.variants})" if args.variants > 1 else ""))
        try:
            _print(pieces)
        except ArithmeticError as error:  # broken weights, or numbers that outgrew fp16
            raise ValueError(str(error)) from error


def read_prompt(words: Sequence[str]) -> str:
    """The prompt from the arguments, in which \\n is a line break, or else from standard input.

    Letters and line ends become those of the corpora that models learn from (a text from Windows, a "й" of two
    characters). Raises ValueError for what is not UTF-8 or empty, and where there is nothing to read.
    """
    if list(words) not in ([], ["-"]):
        text = _line_breaks(" ".join(words))
    elif sys.stdin is None or (not words and sys.stdin.isatty()):
        raise ValueError('There is no prompt: give the first words of the poem, as in minipoet write "Мороз и солнце".')
    else:
        text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # bytes that are no UTF-8 come as surrogates, from the arguments too
        raise ValueError(
            f"The prompt is not UTF-8 (after {error.start} characters): convert it, as in iconv -f CP1251 -t UTF-8."
        ) from error
    text = unify_characters(text)
    if not text.strip():
        raise ValueError("The prompt is empty: give the first word or line of the poem.")
    return text


def _line_breaks(text: str) -> str:
    """A shell hands over "\\n" in quotes as two characters; no verse has a backslash."""
    return text.replace("\\n", "\n")


def _settings(args: argparse.Namespace) -> SamplingSettings:
    """The options as settings. Raises ValueError that names the options which make no sense, all at once."""
    values = {name: getattr(args, name) for name in OPTIONS if hasattr(args, name)}
    values["stop"] = [_line_breaks(text) for text in args.stop]
    values["seed"] = secrets.randbelow(LUCKY) if args.seed is None else args.seed
    wrong = [] if args.variants >= 1 else [f"--variants must be at least 1, got {args.variants}"]
    if args.variants > 1 and args.temperature == 0:
        wrong.append("--temperature 0 draws nothing, so all variants would be the same")
    try:
        settings = SamplingSettings(**values)
    except ValueError as error:
        message = str(error).removeprefix("Sampling settings: ").removesuffix(".")
        for name, option in OPTIONS.items():
            message = re.sub(rf"\b{name}(?= must| is for)", option, message)
            message = re.sub(rf"\b{name}=", f"{option} ", message)
        wrong.append(message)
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}.")
    return settings


def _device(name: str | None) -> torch.device:
    """The device of that name, tried. Raises ValueError for one that is not there."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name).item()
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        raise ValueError(f"--device {name} cannot be used here: {reason}. The CPU always can: --device cpu.") from error


def _load(
    base: str | None, adapter: str | None, dtype: torch.dtype | None, device: torch.device
) -> tuple[LanguageModel, Tokenizer]:
    """The base, ready to write: a LoRA is merged into plain weights (the same up to rounding, and a third faster)."""
    if base is not None and folders.is_adapter(Path(base)) and not folders.is_checkpoint(Path(base)):
        raise ValueError(f"{base} holds an adapter, not a model: give it as --adapter.")
    if base is None:
        base = BASE if adapter is None else _base_of(folders.adapter_base(adapter))
    model, tokenizer = api.load(base, dtype, device)
    few_bits = any(few_bit_layers(model))
    if adapter is not None:
        model = load_adapter(model, adapter)
        model = merge_lora(model) if any(lora_layers(model)) and not few_bits else model
    if few_bits and next(model.parameters()).dtype is torch.bfloat16:  # the only type in which they are fast
        model = pack_for_speed(model)
    return pack_weights(model), tokenizer


def _base_of(made_for: str) -> str:
    """What to load for an adapter made for this: itself, if it can be found. The shapes have the last word."""
    on_the_hub = made_for.count("/") == 1 and not made_for.startswith(("/", ".", "~"))
    if folders.is_here(made_for) or on_the_hub:
        return made_for
    tell(
        f"note: the adapter's base ({made_for or 'which it does not name'}) is not here, so {BASE} is tried; see --base"
    )
    return BASE


def _print(pieces: Iterator[str]) -> None:
    """Write the pieces as they come. Whatever happens, what was written ends with a line break."""
    last = "\n"
    try:
        for piece in pieces:
            show(piece, end="")
            last = piece
    finally:
        if not last.endswith("\n"):
            show("")
