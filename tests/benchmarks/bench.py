"""Everything that is measured beside other tools, in one run: ``make bench``, or a part: ``bench.py merge --peers``.

Contestants take turns, each in a process of its own, with its inputs in the page cache; medians are shown, ratios
first, and nothing is asserted. ``--write`` puts the table into docs/benchmarks.md and its summary into the README. It
takes 40 GB of disk and the better part of an hour; do nothing else on the machine meanwhile. Linux only.
"""

import argparse
import os
import pickle
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import evaluate
import merge
import peers
import startup
import sweep
import tables
from contest import Contest, Run, race

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "start-up": startup.contests,
    "merge": merge.contests,
    "memory": merge.memory_contests,
    "eval": evaluate.contests,
    "sweep": sweep.contests,
}
PACKAGES = ("mergekit-wise", "numpy", "torch", "safetensors", "open_clip_torch", "pillow")


def facts(home: Path, options: argparse.Namespace) -> str:
    """The machine, the versions and what is shown, in one paragraph."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    if options.peers:
        for name, packages in (("merge", peers.MERGERS), ("eval", peers.EVALUATORS[:1])):
            folder = home / f"peers-{name}"
            versions += peers.versions(folder if folder.exists() else None, packages)
    machine = [f"{os.cpu_count()} cores ({processor()})", f"{memory:.0f} GiB of memory", options.cuda]
    turns = "1 run" if options.repeat == 1 else f"{options.repeat} runs by turns"
    return (
        f"{', '.join(filter(None, machine))}, load {options.load:.2f} at the start; "
        f"Linux {platform.release()}, Python {platform.python_version()}; "
        f"{', '.join(versions)}. Whole processes with their inputs in the page cache; times are medians, memory the "
        f"largest, of {turns} (memory against size: one); 1 MB is 10^6 bytes."
    )


def processor() -> str:
    """Its name, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def cuda() -> str:
    """The device's name, or nothing."""
    script = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip()


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder that was asked for, which stays, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="wise-bench-") as name:
        yield Path(name)


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all unless named")
    parser.add_argument("--folder", type=Path, help="where data and peers are made, and kept for the next time")
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="other tools too")
    parser.add_argument("--scale", type=float, default=1.0, help="of the merged checkpoints, for a quick trial")
    parser.add_argument("--model", default="ViT-B-32", metavar="NAME", help="one of open_clip's, to evaluate and sweep")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="to evaluate")
    parser.add_argument("--sweep-images", type=int, default=256, metavar="N", help="to sweep over")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md and the README")
    parser.add_argument("--again", action="store_true", help="run nothing: the tables of the last run in --folder")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    if options.write and options.sections:
        parser.error("--write is for a run of all sections")
    if options.again and options.folder is None:
        parser.error("--again needs --folder")
    options.load, options.cuda = os.getloadavg()[0], cuda()
    return options


def main() -> None:
    """Make the data, run, print."""
    options = parsed()
    with work_folder(options.folder) as home:
        kept = home / "results.pickle"
        if options.again:
            results, about = pickle.loads(kept.read_bytes())
        else:
            results = []
            for result in run(home, options):
                results.append(result)
                about = facts(home, options)  # which names the peers that there are by now
                kept.write_bytes(pickle.dumps((results, about)))
    table = [tables.HEADER, *(row for result in results for row in tables.rows(*result))]
    if options.again:
        print(*table, sep="\n")
    print(f"\n{about}\n", *tables.summary(results), sep="\n")
    if options.write:
        tables.write_between(ROOT / "docs" / "benchmarks.md", [about, "", *table])
        tables.write_between(ROOT / "README.md", [*tables.summary(results), "", about])


def run(home: Path, options: argparse.Namespace) -> Iterator[tuple[Contest, Mapping[str, Run]]]:
    """Each section's contests, whose rows are printed as soon as they are known."""
    print(tables.HEADER, flush=True)
    for section in options.sections or SECTIONS:
        for contest in SECTIONS[section](home, options):
            print(f"{section}: {contest.what}", file=sys.stderr)
            result = (
                replace(contest, commands={}, settle=str),
                race(contest),
            )  # without what belongs to this run alone
            print(*tables.rows(*result), sep="\n", flush=True)
            yield result
    shutil.rmtree(home / "out", ignore_errors=True)


if __name__ == "__main__":
    main()
