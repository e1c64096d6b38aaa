"""The `minipoet` command, one file a subcommand, and how any command of ours ends.

write      a poem from its first words         describe   what is in a folder, as plain values, for info
info       what is in a folder, in words       folders    what kind of folder it is, and an adapter's base
convert    an old .bin as safetensors          units      words for types of numbers and for sizes
label      a person's yes or no, text by text

Below: `run`, by which a command ends (0 when it did its work, 2 with one sentence when the user has something to
mend), `show` for its result, `tell` for a note beside it.
Chapter: docs/command.md
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from minipoet.training import TrainingDiverged

GO_ON = "start again with --resume where the command has it"


def run(main: Callable[[], None], interrupted: str = GO_ON) -> None:
    """Run main(). A user's mistake (ValueError, OSError) or a diverged run is told in one message; the exit code is 2.

    Interrupted by Ctrl-C: 130, and 141 when the reader of our output has gone (`| head -1`), as a shell expects. Other
    errors are ours, and keep their traceback.
    """
    try:
        main()
        _flush()
    except BrokenPipeError:
        _end(141)
    except (ValueError, OSError, TrainingDiverged) as error:
        _end(2, f"error: {error}")
    except KeyboardInterrupt:
        _end(130, f"interrupted; {interrupted}")


def show(text: str, end: str = "\n") -> None:
    """A part of the result: to standard output, at once. Raises OSError if it cannot be written there."""
    if sys.stdout is None:
        raise OSError("Standard output is closed: there is nowhere to write to.")
    with _output():
        print(text, end=end, flush=True)


def tell(text: str) -> None:
    """A note beside the result: to standard error, if there is one."""
    if sys.stderr is not None:  # print(file=None) would write to standard output
        print(text, file=sys.stderr, flush=True)


def _end(code: int, text: str = "") -> None:
    """Leave with a code. Output that cannot be written any more is dropped, or Python would complain at its own end."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if text:
        tell(text)
    sys.exit(code)


def _flush() -> None:
    if sys.stdout is not None:
        with _output():
            sys.stdout.flush()


@contextmanager
def _output() -> Iterator[None]:
    """A full disk, and the like, in a sentence."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(f"Could not write to standard output: {error.strerror or error}.") from error
