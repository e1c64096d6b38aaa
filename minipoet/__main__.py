"""The `minipoet` command (also `python -m minipoet`): it reads the arguments and hands them to a subcommand.

Each subcommand is one file of minipoet/command/, with its options. Chapter: docs/command.md
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

import minipoet
from minipoet.command import convert, info, label, run, write


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with these arguments, by default those of the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file or a pipe gets UTF-8; a terminal of another encoding gets "?" for a letter that it has not.
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="replace")
    parser = argparse.ArgumentParser(
        prog="minipoet",
        description="Verse in the manner of a poet: language models and LoRA, from scratch.",
        epilog="minipoet COMMAND --help tells the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"minipoet {minipoet.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in (write, info, convert, label):
        command.add_parser(commands)
    args = parser.parse_args(arguments)
    if "main" not in args:
        parser.exit(2, parser.format_help())
    run(lambda: args.main(args), args.interrupted)


if __name__ == "__main__":
    main()
