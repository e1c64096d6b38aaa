"""How a command of ours ends: 0 when it did its work, 2 with one sentence when the user has something to mend."""

from __future__ import annotations

import sys
from collections.abc import Callable

from minipoet.training import TrainingDiverged


def run(main: Callable[[], None]) -> None:
    """Run main(). A user's mistake (ValueError, OSError) or a diverged run is told in one message; the exit code is 2.

    Interrupted by Ctrl-C: 130, as a shell expects. Other errors are ours, and keep their traceback.
    """
    try:
        main()
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; start again with --resume where the command has it", file=sys.stderr)
        sys.exit(130)
