"""Merging beside `cp`, scripts and other tools, and memory against size."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import peers
from contest import Contest

RUN = Path(__file__).with_name("merge_run.py")
DTYPES = ("float32", "bfloat16", "float16")
FORMATS = ("safetensors", "pt")
IN_PYTHON = {
    "wise, from Python": "wise",
    "torch: map, mix, write": "loop",
    "load both, mix, save_file": "everything",
}
OURS = "wise merge"
RIVALS = ("load both, mix, save_file", "mergekit-pytorch", "sd-mecha")
SIZES = (0.4, 1.6, 6.0, 20.0)
"""Of sparse files, in GB."""
EVERYTHING_TIMES = 4
"""Loading both and mixing takes up to that many times one file's size of memory, with the page cache's copy."""


def contests(home: Path, options: Namespace) -> Iterator[Contest]:
    """One a dtype and a kind of file."""
    others = peers.environment(home, "merge", peers.MERGERS) if options.peers else None
    for dtype, form, half in (*product(DTYPES, FORMATS, (False,)), ("float32", "safetensors", True)):
        pair = make_pair(home, dtype, form, options.scale, half=half)
        out = home / "out"
        commands = contestants(pair, out)
        if options.cuda:
            commands["wise merge --device cuda"] = [*commands[OURS], "--device", "cuda"]
        if others is not None:
            commands |= other_tools(pair, out, others)
        what = f"{dtype} {'.pt' if form == 'pt' else form}, {pair[0].stat().st_size / 1e9:.2f} GB"
        what += ", half of it equal" if half else ""
        settle = partial(bring_to_rest, pair, out)
        yield Contest("merge", what, commands, OURS, "cp", repeat=options.repeat, settle=settle, rivals=RIVALS)
        shutil.rmtree(out, ignore_errors=True)
        if not options.folder:  # room for the next
            for path in pair:
                path.unlink()


def contestants(pair: tuple[Path, Path], out: Path) -> dict[str, list[str]]:
    """What runs in our own environment: the name in the table and the command."""
    first, second = map(str, pair)
    output = str(out / "merged.safetensors")
    commands = {
        OURS: [sys.executable, "-m", "mergekit_wise", "merge", first, second, "-o", output],
        "cp": ["cp", first, output],
        "cp, then sync": ["sh", "-c", 'cp "$0" "$1" && sync "$1"', first, output],
    }
    for name, script in IN_PYTHON.items():
        commands[name] = [sys.executable, str(RUN), script, first, second, output]
    return commands


def other_tools(pair: tuple[Path, Path], out: Path, folder: Path) -> dict[str, list[str]]:
    """The tools of the environment in `folder`."""
    first, second = map(str, pair)
    config = out.with_name("mergekit.json")  # JSON is YAML too
    models = [{"model": path, "parameters": {"weight": 0.5}} for path in (first, second)]
    config.write_text(json.dumps({"merge_method": "linear", "models": models}))
    return {
        "mergekit-pytorch": [str(folder / "bin/mergekit-pytorch"), str(config), str(out)],
        "sd-mecha": [str(folder / "bin/python"), str(RUN), "mecha", first, second, str(out / "merged.safetensors")],
    }


def bring_to_rest(pair: tuple[Path, Path], out: Path, *, cached: bool = True) -> None:
    """Remove the last output, let the disk come to rest, and bring the inputs into the page cache."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    os.sync()
    buffer = bytearray(1 << 22)
    for path in pair if cached else ():
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def make_pair(home: Path, dtype: str, form: str, scale: float, *, half: bool = False) -> tuple[Path, Path]:
    """The pair's two files, made unless they are there; with `half`, every second tensor is equal, as if frozen."""
    folder = home / f"scale-{scale:g}"
    folder.mkdir(exist_ok=True)
    side = "half" if half else "finetuned"
    pair = (folder / f"zeroshot-{dtype}.{form}", folder / f"{side}-{dtype}.{form}")
    if not all(path.exists() for path in pair):
        command = [sys.executable, "-W", "ignore", str(RUN), "data", str(folder), dtype, str(scale), side]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return pair


def memory_contests(home: Path, options: Namespace) -> Iterator[Contest]:
    """Pairs of sparse files of growing size, for as long as disk and memory have room."""
    for gigabytes in SIZES:
        size, out = int(gigabytes * 1e9 * options.scale), home / "out"
        if shutil.disk_usage(home).free < size * 1.25:
            print(f"no room on the disk for an output of {gigabytes:g} GB", file=sys.stderr)
            return
        pair = make_sparse_pair(home, size)
        every = contestants(pair, out)
        names = [OURS, RIVALS[0]] if size * EVERYTHING_TIMES < available_memory() else [OURS]
        commands = {name: every[name] for name in names}
        settle = partial(bring_to_rest, pair, out, cached=False)
        what = f"merge, float32, {gigabytes:g} GB, sparse"
        yield Contest("memory", what, commands, OURS, repeat=1, settle=settle, rivals=names[1:])
        for path in pair:
            path.unlink()
        shutil.rmtree(out, ignore_errors=True)


def available_memory() -> int:
    """Bytes."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) << 10


def make_sparse_pair(home: Path, size: int, count: int = 400) -> tuple[Path, Path]:
    """Two float32 files of zeros that take no disk; the second has a one in each tensor, so that none is equal."""
    each = max(4096, size // count // 4096 * 4096)
    spans = {f"blocks.{number}.weight": [number * each, (number + 1) * each] for number in range(count)}
    fixed = {"dtype": "F32", "shape": [each // 4096, 1024]}
    header = {name: fixed | {"data_offsets": span} for name, span in spans.items()}
    text = json.dumps(header).encode()
    pair = (home / "zeroshot-sparse.safetensors", home / "finetuned-sparse.safetensors")
    for path, one in zip(pair, (b"", b"\0\0\x80\x3f"), strict=True):
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(file.tell() + each * count)
            for number in range(count):
                file.seek(8 + len(text) + number * each)
                file.write(one)
    return pair
