"""The process of ``wise`` and ``python -m mergekit_wise``. Of several under torchrun, only the first prints."""

import io
import sys
from collections.abc import Callable

from mergekit_wise import launcher, signals


def main() -> None:
    """Entry point of the console script. Signals are handled before anything slow is imported."""
    signals.ignore_at_the_end()
    signals.leave_at_once("Interrupted before any work was done. Nothing was written.")
    from mergekit_wise.cli.app import main as run

    if launcher.rank() and launcher.world_size() > 1:
        _quietly(launcher.rank(), run)
    else:
        run()


def _quietly(rank: int, run: Callable[[], None]) -> None:
    """Run, and print nothing but the reason of a failure."""
    sys.stdout, sys.stderr = io.StringIO(), (errors := io.StringIO())
    try:
        run()
    except SystemExit as end:
        if end.code:
            print(f"process {rank}: {errors.getvalue().strip()}", file=sys.__stderr__)
        raise


if __name__ == "__main__":  # decoding processes import this file too where they cannot be forked
    main()
