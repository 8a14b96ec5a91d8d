"""How many branches of each room the tests take: ``python tests/coverage_rooms.py REPORT``, run by ``make coverage``.

Reads what ``coverage json`` wrote. Coverage itself can only fail for the package as a whole.
"""

import json
import sys
from collections import Counter
from pathlib import Path

ROOMS = ("checkpoint", "merging", "evaluation", "analysis")
"""Those that must reach `LEAST`: what is wrong in them is wrong in the weights, or in what is said of them."""

LEAST = 0.95


def main(report: Path) -> int:
    """Print every room; returns 1 if one of `ROOMS` is below `LEAST`."""
    taken, there = Counter[str](), Counter[str]()
    for name, file in json.loads(report.read_text())["files"].items():
        room = Path(name).parts[1].removesuffix(".py")
        taken[room] += file["summary"]["covered_branches"]
        there[room] += file["summary"]["num_branches"]
    shares = {room: taken[room] / count for room, count in there.items() if count}
    for room, share in sorted(shares.items()):
        print(f"{room:<12} {taken[room]:>5} of {there[room]:>5} branches {share:>8.1%}")
    short = [room for room in ROOMS if shares[room] < LEAST]
    if short:
        print(f"Below {LEAST:.0%}: {', '.join(short)}. Test the branches that are listed above, or delete them.")
    return bool(short)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
