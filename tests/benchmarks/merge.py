"""Speed and memory of merging beside `cp`, beside scripts and beside other tools: ``python tests/benchmarks/merge.py``.

Every run is a whole process, with its inputs in the page cache; contestants take turns. Nothing is asserted: it prints
a Markdown table. Linux only. It imports nothing large, since a child's peak memory starts from its parent's.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median

RUN = Path(__file__).with_name("run.py")
DTYPES = ("float32", "bfloat16", "float16")
FORMATS = ("safetensors", "pt")
PEERS = ("mergekit", "sd-mecha")
IN_PYTHON = {
    "wise, imports only": "imports",
    "wise, from Python": "wise",
    "torch: map, mix, write": "loop",
    "torch: load everything": "everything",
}
SAMPLE_SECONDS = 0.01
MB = 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds on the wall, of its processors, and of its work after imports; bytes at their peaks.

    Peaks are of resident memory, its private part and its mapped pages. `failure` is why there is no result.
    """

    wall: float
    cpu: float
    inner: float | None
    resident: float
    private: float
    mapped: float
    failure: str = ""


@dataclass(slots=True)
class Peaks:
    """The largest private and mapped memory of a process, in bytes, looked at while it runs."""

    done: threading.Event = field(default_factory=threading.Event)
    private: int = 0
    mapped: int = 0

    def watch(self, pid: int) -> None:
        """Look until `done` is set; a process that has ended has no memory."""
        while not self.done.wait(SAMPLE_SECONDS):
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            self.private = max(self.private, int(status.get("RssAnon", "0 kB").split()[0]) << 10)
            self.mapped = max(self.mapped, int(status.get("RssFile", "0 kB").split()[0]) << 10)


def measure(command: Sequence[str]) -> Run:
    """Run a command to its end and say what it took."""
    peaks = Peaks()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        watcher = threading.Thread(target=peaks.watch, args=(process.pid,))
        watcher.start()
        # WNOWAIT leaves the process in the table until the watcher has stopped.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - began
        peaks.done.set()
        watcher.join()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        failure = _reason(errors.read()) if process.returncode else ""
        inner = re.search(r"^seconds (\S+)$", out.read(), re.MULTILINE)
    cpu, within = usage.ru_utime + usage.ru_stime, float(inner[1]) if inner else None
    return Run(wall, cpu, within, usage.ru_maxrss << 10, peaks.private, peaks.mapped, failure)


def _reason(text: str) -> str:
    """The last line that names an error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    return next((line for line in reversed(lines) if "Error" in line), lines[-1])[:120].replace("|", "/")


def contestants(pair: tuple[Path, Path], out: Path, peers: Path | None) -> dict[str, list[str]]:
    """What is run on a pair: the name in the table and the command."""
    first, second = map(str, pair)
    output = str(out / "merged.safetensors")
    commands = {
        "cp": ["cp", first, output],
        "cp, then sync": ["sh", "-c", 'cp "$0" "$1" && sync "$1"', first, output],
        "wise merge": [sys.executable, "-m", "mergekit_wise", "merge", first, second, "-o", output],
    }
    for name, script in IN_PYTHON.items():
        commands[name] = [sys.executable, str(RUN), script, first, second, output]
    if peers is not None:
        config = out.with_name("mergekit.json")  # JSON is YAML too
        models = [{"model": path, "parameters": {"weight": 0.5}} for path in (first, second)]
        config.write_text(json.dumps({"merge_method": "linear", "models": models}))
        commands["mergekit-pytorch"] = [str(peers / "bin/mergekit-pytorch"), str(config), str(out)]
        commands["sd-mecha"] = [str(peers / "bin/python"), str(RUN), "mecha", first, second, output]
    return commands


def race(pair: tuple[Path, Path], commands: Mapping[str, Sequence[str]], out: Path, repeat: int) -> dict[str, Run]:
    """Let the contestants take turns, `repeat` times; the medians of each. One that fails does not run again."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for turn, name in product(range(repeat), commands):
        if any(run.failure for run in runs[name]):
            continue
        _settle(pair, out)
        print(f"  {turn + 1}/{repeat} {name}", file=sys.stderr, end="", flush=True)
        runs[name].append(measure(commands[name]))
        print(f": {runs[name][-1].wall:.2f} s", file=sys.stderr)
    shutil.rmtree(out)
    return {name: _medians(taken) for name, taken in runs.items()}


def _settle(pair: tuple[Path, Path], out: Path) -> None:
    """Remove the last output, let the disk come to rest, and bring the inputs into the page cache."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    os.sync()
    buffer = bytearray(1 << 22)
    for path in pair:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _medians(runs: Sequence[Run]) -> Run:
    inner = [run.inner for run in runs if run.inner is not None]
    return Run(
        median(run.wall for run in runs),
        median(run.cpu for run in runs),
        median(inner) if inner else None,
        max(run.resident for run in runs),
        max(run.private for run in runs),
        max(run.mapped for run in runs),
        next((run.failure for run in runs if run.failure), ""),
    )


def rows(what: str, results: Mapping[str, Run]) -> Iterator[str]:
    """Lines of the table: times as multiples of `cp`, whole processes also of `wise merge`."""
    cp, wise = results.get("cp"), results["wise merge"]
    for name, run in results.items():
        if run.failure:
            yield f"| {what} | {name} | failed: {run.failure} |" + " |" * 8
            continue
        whole = [f"{run.wall:.2f}", f"{run.wall / cp.wall:.2f}" if cp else "", f"{run.wall / wise.wall:.2f}"]
        inner = [f"{run.inner:.2f}", f"{run.inner / cp.wall:.2f}"] if run.inner is not None and cp else ["", ""]
        sizes = [f"{size / MB:,.0f}" for size in (run.resident, run.private, run.mapped)]
        cells = [what, name, *whole, *inner, f"{run.cpu:.2f}", *sizes]
        yield "| " + " | ".join(cells) + " |"


HEADER = (
    "| pair | contestant | whole process, s | × cp | × wise merge | after imports, s | × cp | CPU s "
    "| peak RSS, MB | peak RssAnon, MB | peak RssFile, MB |\n|---|---|" + "--:|" * 9
)


def make_pair(folder: Path, dtype: str, form: str, scale: float) -> tuple[Path, Path]:
    """The pair's two files, made unless they are there."""
    folder = folder / f"scale-{scale:g}"
    folder.mkdir(exist_ok=True)
    pair = (folder / f"zeroshot-{dtype}.{form}", folder / f"finetuned-{dtype}.{form}")
    if not all(path.exists() for path in pair):
        command = [sys.executable, "-W", "ignore", str(RUN), "data", str(folder), dtype, str(scale)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return pair


def make_sparse_pair(folder: Path, size: int, count: int = 400) -> tuple[Path, Path]:
    """Two float32 files of zeros that take no disk; the second has a one in each tensor, so that none is equal."""
    each = size // count // 4096 * 4096
    spans = {f"blocks.{number}.weight": [number * each, (number + 1) * each] for number in range(count)}
    fixed = {"dtype": "F32", "shape": [each // 4096, 1024]}
    header = {name: fixed | {"data_offsets": span} for name, span in spans.items()}
    text = json.dumps(header).encode()
    pair = (folder / "zeroshot-sparse.safetensors", folder / "finetuned-sparse.safetensors")
    for path, one in zip(pair, (b"", b"\0\0\x80\x3f"), strict=True):
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(file.tell() + each * count)
            for number in range(count):
                file.seek(8 + len(text) + number * each)
                file.write(one)
    return pair


def large(folder: Path, gigabytes: float) -> Iterator[str]:
    """Rows for one merge of a pair of sparse files, if the disk has room for the output."""
    size, out = int(gigabytes * 1e9), folder / "out"
    if shutil.disk_usage(folder).free < size * 1.25:
        yield f"| sparse, {gigabytes:g} GB | wise merge | skipped: no room for the output |" + " |" * 8
        return
    pair = make_sparse_pair(folder, size)
    command = contestants(pair, out, None)["wise merge"]
    out.mkdir()
    yield from rows(f"sparse, {gigabytes:g} GB", {"wise merge": measure(command)})
    shutil.rmtree(out)
    for path in pair:
        path.unlink()


def install_peers(folder: Path) -> Path | None:
    """An environment with the other tools, on top of this one's packages; None, and a word why, if there is none."""
    peers = folder / "peers"
    if peers.exists():
        return peers
    python = str(peers / "bin/python")
    subprocess.run([sys.executable, "-m", "venv", str(peers)], check=True)
    # --system-site-packages would show the base interpreter's packages, not those of the environment we run in.
    below = peers / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "below.pth"
    below.write_text(sysconfig.get_path("purelib") + "\n")
    pip = subprocess.run([python, "-m", "pip", "install", "-q", *PEERS], capture_output=True, text=True)
    if pip.returncode == 0:
        return peers
    print(f"\nPeers could not be installed: {_reason(pip.stderr)}\n")
    shutil.rmtree(peers)
    return None


def facts(peers: Path | None, options: argparse.Namespace) -> str:
    """The machine and the versions, in one paragraph."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"{name} {version(name)}" for name in ("mergekit-wise", "numpy", "torch", "safetensors")]
    if peers is not None:
        command = [str(peers / "bin/python"), "-m", "pip", "list", "--format=json"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        versions += [f"{package['name']} {package['version']}" for package in found if package["name"] in PEERS]
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, load {os.getloadavg()[0]:.2f} at the start; "
        f"Linux {platform.release()}, Python {platform.python_version()}, {', '.join(versions)}. "
        f"Times are medians, memory the largest, of {options.repeat} runs; 1 MB is 10^6 bytes."
    )


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
    """Read the options, make the data, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where data and peers are made, and kept for the next time")
    parser.add_argument("--repeat", type=int, default=3, metavar="N")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="other tools too")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the pair's size, for a quick trial")
    parser.add_argument("--large", action="store_true", help="also merge a pair of large sparse files")
    parser.add_argument("--large-gb", type=float, default=20.0, metavar="GB")
    options = parser.parse_args()
    with work_folder(options.folder) as folder:
        peers = install_peers(folder) if options.peers else None
        print(facts(peers, options), HEADER, sep="\n\n", flush=True)
        for dtype, form in product(options.dtypes, options.formats):
            pair = make_pair(folder, dtype, form, options.scale)
            what = f"{dtype} {form}, {pair[0].stat().st_size / 1e9:.2f} GB"
            print(what, file=sys.stderr)
            results = race(pair, contestants(pair, folder / "out", peers), folder / "out", options.repeat)
            print(*rows(what, results), sep="\n", flush=True)
            if options.folder is None:  # room for the next
                for path in pair:
                    path.unlink()
        if options.large:
            print(*large(folder, options.large_gb), sep="\n", flush=True)


if __name__ == "__main__":
    main()
