"""``python -m mergekit_wise`` is ``wise``. Of several processes that torchrun starts, only the first prints."""

import io
import sys

from mergekit_wise import launcher
from mergekit_wise.cli.app import main


def _quietly(rank: int) -> None:
    """Run, and print nothing but the reason of a failure."""
    sys.stdout, sys.stderr = io.StringIO(), (errors := io.StringIO())
    try:
        main()
    except SystemExit as end:
        if end.code:
            print(f"process {rank}: {errors.getvalue().strip()}", file=sys.__stderr__)
        raise


if __name__ == "__main__":  # decoding processes import this file too where they cannot be forked
    if launcher.rank() and launcher.world_size() > 1:
        _quietly(launcher.rank())
    else:
        main()
