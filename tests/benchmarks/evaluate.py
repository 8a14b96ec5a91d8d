"""Images a second of ``wise eval`` beside a plain open_clip loop and CLIP_benchmark, on one model and one folder.

``python tests/benchmarks/evaluate.py``. Every run is a whole process, with the images in the page cache; contestants
take turns. It prints a Markdown table and asserts nothing: only look whether all of them find as many images right.
CPU only; Linux only.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median

RUN = Path(__file__).with_name("evaluate_run.py")
PEERS = ("clip-benchmark", "webdataset", "braceexpand", "numpy<2.4")
"""Without what only captions and other tasks need. Version 1.6.2 fails with numpy 2.4, which makes no number of [1]."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds on the wall and of all its processors, seconds of the evaluation alone, images right."""

    wall: float
    cpu: float
    inner: float
    correct: int


def measure(command: Sequence[str]) -> Run | str:
    """Run a command to its end and say what it took, or the last line that it printed if it failed."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, os.times()
    found = re.search(r"^seconds (\S+)\ncorrect (\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        return (done.stderr.strip().splitlines() or ["no message"])[-1][:160].replace("|", "/")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Run(wall, cpu, float(found[1]), int(found[2]))


def contestants(home: Path, options: argparse.Namespace, peers: str | None) -> dict[str, list[str]]:
    """The name in the table, and the command."""
    checkpoint = str(home / f"{options.model}.safetensors")
    commands = {}
    for precision in options.precisions:
        words = [checkpoint, options.model, str(images_folder(home, options.images))]
        words += [str(options.batch_size), str(options.workers), precision]
        commands[f"wise, {precision}"] = [sys.executable, str(RUN), "wise", *words]
        commands[f"open_clip loop, {precision}"] = [sys.executable, str(RUN), "loop", *words]
        if peers is not None:
            commands[f"CLIP_benchmark, {precision}"] = [peers, str(RUN), "clip_benchmark", *words]
    return commands


def race(commands: Mapping[str, Sequence[str]], repeat: int) -> dict[str, list[Run] | str]:
    """Let the contestants take turns, `repeat` times. One that fails does not run again."""
    runs: dict[str, list[Run] | str] = {name: [] for name in commands}
    for turn, name in product(range(repeat), commands):
        so_far = runs[name]
        if isinstance(so_far, str):
            continue
        print(f"  {turn + 1}/{repeat} {name}", file=sys.stderr, end="", flush=True)
        run = measure(commands[name])
        print(f": {run if isinstance(run, str) else f'{run.inner:.2f} s'}", file=sys.stderr)
        if isinstance(run, str):
            runs[name] = run
        else:
            so_far.append(run)
    return runs


def rows(runs: Mapping[str, list[Run] | str], images: int) -> Iterator[str]:
    """Lines of the table."""
    yield "| contestant | images a second | evaluation, s | whole process, s | CPU s | images right |"
    yield "|---|" + "--:|" * 5
    for name, each in runs.items():
        if isinstance(each, str):
            yield f"| {name} | failed: {each} |" + " |" * 4
            continue
        inner = median(run.inner for run in each)
        cells = [f"{images / inner:.1f}", f"{inner:.2f}", f"{median(run.wall for run in each):.2f}"]
        cells += [f"{median(run.cpu for run in each):.2f}", "/".join(sorted({str(run.correct) for run in each}))]
        yield f"| {name} | " + " | ".join(cells) + " |"


def images_folder(home: Path, count: int) -> Path:
    """Where `count` images are."""
    return home / f"images-{count}"


def prepare(home: Path, options: argparse.Namespace) -> None:
    """Make images and model unless they are there, and bring both into the page cache."""
    folder, checkpoint = images_folder(home, options.images), home / f"{options.model}.safetensors"
    if not (folder / "wds" / "classnames.txt").exists():
        subprocess.run([sys.executable, str(RUN), "data", str(folder), str(options.images)], check=True)
    if not checkpoint.exists():
        subprocess.run([sys.executable, str(RUN), "model", str(checkpoint), options.model], check=True)
    for path in (checkpoint, *folder.rglob("*.*")):
        if path.is_file():
            path.read_bytes()


def install_peers(home: Path) -> str | None:
    """The interpreter of an environment with CLIP_benchmark, on top of this one's packages; None if there is none."""
    peers = home / "peers-clip_benchmark"
    python = str(peers / "bin" / "python")
    if not peers.exists():
        subprocess.run([sys.executable, "-m", "venv", str(peers)], check=True)
        below = peers / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "below.pth"
        below.write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PEERS], capture_output=True)
    check = subprocess.run([python, "-c", "import clip_benchmark.metrics.zeroshot_classification, webdataset"])
    if check.returncode == 0:
        return python
    print("\nCLIP_benchmark could not be installed; it does not take part.\n")
    return None


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder that was asked for, which stays, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="wise-bench-") as name:
        yield Path(name)


def main() -> None:
    """Read the options, make what is needed, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where data and peers are made, and kept for the next time")
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument("--images", type=int, default=1000, metavar="N")
    parser.add_argument("--model", default="ViT-B-32", metavar="NAME", help="one of open_clip's")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="CLIP_benchmark's default")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8), metavar="N")
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=("fp32", "bf16"))
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="CLIP_benchmark too")
    options = parser.parse_args()
    with work_folder(options.folder) as home:
        peers = install_peers(home) if options.peers else None
        prepare(home, options)
        versions = ", ".join(
            f"{name} {version(name)}" for name in ("mergekit-wise", "torch", "open_clip_torch", "pillow")
        )
        print(
            f"{options.model}, {options.images} JPEGs of 500 x 375, batches of {options.batch_size}, {options.workers} "
            f"workers; {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} at the start; Linux {platform.release()}, "
            f"Python {platform.python_version()}, {versions}. Medians of {options.repeat} runs.\n",
            flush=True,
        )
        print(*rows(race(contestants(home, options, peers), options.repeat), options.images), sep="\n")


if __name__ == "__main__":
    main()
