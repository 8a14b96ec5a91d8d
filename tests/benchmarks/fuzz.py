"""Opens a great many damaged files, and reads from what opens: ``python tests/benchmarks/fuzz.py --cases 100000``.

Sound outcomes are two: a checkpoint whose every tensor lies within the file, or the tool's own error. Another
exception, a crash, more than two seconds or much memory is a failure, and ``--case NUMBER`` repeats it alone.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from fuzz_cases import mutated, sound_files

from mergekit_wise.checkpoint import Checkpoint, open_checkpoint
from mergekit_wise.checkpoint.tensors import StoredTensor
from mergekit_wise.errors import CheckpointError

SECONDS = 2.0
MEMORY = 2 << 30
"""Address space that a worker may take beyond what it has at its start."""
GROWTH_KB = 256 << 10
"""Resident memory that one case may add."""


class Hang(BaseException):
    """No `except` of the tool or of a library catches it."""


def outcome(path: Path) -> str:
    """Open a file, read the ends of its tensors; returns "opened" or "refused". Raises where neither is sound."""
    try:
        checkpoint = open_checkpoint(path)
    except CheckpointError as error:
        check_words(str(error))
        return "refused"
    try:
        check(checkpoint, path.stat().st_size)
    finally:
        checkpoint.close()
    return "opened"


def check_words(text: str) -> None:
    """Assert that a message can be shown in a terminal, and is one that people read to its end."""
    assert text.isprintable(), f"unprintable: {text!r}"
    assert len(text) < 1500, f"too long: {text[:100]!r}"


def check(checkpoint: Checkpoint, size: int) -> None:
    """Assert that all of a checkpoint can be read, written again and shown."""
    assert checkpoint.tensors
    for note in checkpoint.notes:
        check_words(note)
    assert checkpoint.nbytes <= 1024 * size + (1 << 26), "too many bytes"
    content = np.fromfile(checkpoint.path, np.uint8)
    for name, stored in checkpoint.tensors.items():
        info = stored.info
        name.encode()
        if info.count == 0:
            assert checkpoint.read(name).size == 0
            continue
        if not isinstance(stored, StoredTensor):  # decoded or computed
            for index in (0, info.count - 1):
                assert checkpoint.read(name, index, index + 1).shape == (1,)
            continue
        steps = stored.strides or np.cumprod([1, *info.shape[:0:-1]])[::-1]
        last = sum((size - 1) * int(step) for size, step in zip(info.shape, steps, strict=False))
        assert stored.offset >= 0, "before the file"
        assert stored.offset + (last + 1) * info.dtype.itemsize <= size, "beyond the file"
        for index, place in ((0, 0), (info.count - 1, last)):
            element = checkpoint.read(name, index, index + 1)
            assert element.shape == (1,)
            start = stored.offset + place * info.dtype.itemsize
            assert element.tobytes() == content[start : start + info.dtype.itemsize].tobytes(), "wrong bytes"


def one(number: int, files: dict[str, bytes], path: Path) -> tuple[str, str]:
    """Run a case; returns its kind and its outcome, "opened" and "refused" or the failure in words."""
    kind, data = mutated(number, files)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        result = outcome(path)
    except (Exception, Hang):
        result = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return kind, result if grown < GROWTH_KB else f"{result}, and took {grown >> 10} MB of memory"


def work(numbers: range, files: dict[str, bytes], path: Path, results: Connection) -> None:
    """Run cases one after the other and send (number, kind, outcome) of each."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, _hang)
    for number in numbers:
        results.send((number, *one(number, files, path)))
    results.close()


def _hang(*_: object) -> None:
    raise Hang


def run(numbers: range, files: dict[str, bytes], folder: Path) -> tuple[Counter[tuple[str, str]], dict[int, str]]:
    """Run cases in a process of their own, a new one after each crash; returns counts, and failures by number."""
    counts: Counter[tuple[str, str]] = Counter()
    failures: dict[int, str] = {}
    path = folder / f"wise-fuzz-{os.getpid()}-{numbers.start}"
    while numbers:
        receive, send = multiprocessing.Pipe(duplex=False)
        worker = multiprocessing.get_context("fork").Process(target=work, args=(numbers, files, path, send))
        worker.start()
        send.close()
        try:
            while receive.poll(60):
                number, kind, result = receive.recv()
                numbers = numbers[1:]
                counts[kind, result if result in ("opened", "refused") else "failed"] += 1
                if result not in ("opened", "refused"):
                    failures[number] = result
        except EOFError:
            pass
        worker.kill()
        worker.join()
        if numbers:  # it died or hung in the midst of a case
            failures[numbers[0]] = f"the process ended with {worker.exitcode}"
            counts[mutated(numbers[0], files)[0], "failed"] += 1
            numbers = numbers[1:]
    path.unlink(missing_ok=True)
    return counts, failures


def main() -> None:
    """Read the command line, run, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="the number of the first case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--case", type=int, help="run this case alone, and keep its file")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm" if Path("/dev/shm").is_dir() else "."))
    asked = parser.parse_args()
    files = sound_files()
    if asked.case is not None:
        signal.signal(signal.SIGALRM, _hang)
        path = asked.folder / f"wise-fuzz-case-{asked.case}"
        print(path, *one(asked.case, files, path))
        return
    began = time.monotonic()
    numbers = range(asked.seed, asked.seed + asked.cases)
    shares = [(numbers[job :: asked.jobs], files, asked.folder) for job in range(asked.jobs)]
    with ThreadPoolExecutor(asked.jobs) as pool:  # each thread minds one process
        parts = list(pool.map(run, *zip(*shares, strict=True)))
    counts: Counter[tuple[str, str]] = sum((part[0] for part in parts), Counter())
    failures = {number: why for part in parts for number, why in part[1].items()}
    report(counts, failures, time.monotonic() - began)


def report(counts: Counter[tuple[str, str]], failures: dict[int, str], seconds: float) -> None:
    """Print the outcomes by kind, and every failure."""
    words = ("opened", "refused", "failed")
    print(f"{'kind':20}" + "".join(f"{word:>10}" for word in words))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:20}" + "".join(f"{counts[kind, word]:10,}" for word in words))
    totals = [sum(n for (_, word), n in counts.items() if word == wanted) for wanted in words]
    print(f"{'all':20}" + "".join(f"{total:10,}" for total in totals))
    print(f"{sum(totals):,} cases in {seconds:.0f} s; {len(failures)} failures")
    for number, why in sorted(failures.items()):
        print(f"\ncase {number}: {why}")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
