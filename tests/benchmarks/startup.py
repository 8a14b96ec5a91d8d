"""How long a command takes that has next to nothing to do."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import peers
from contest import Contest
from merge import bring_to_rest, contestants, make_pair, other_tools


def contests(home: Path, options: Namespace) -> Iterator[Contest]:
    """Help, and a pair of tensors of a few kilobytes each."""
    others = peers.environment(home, "merge", peers.MERGERS) if options.peers else None
    python = [sys.executable, "-c"]
    commands = {
        "wise --help": [sys.executable, "-m", "mergekit_wise", "--help"],
        "python, nothing": [*python, "pass"],
        "python, import torch": [*python, "import torch"],
    }
    if others is not None:
        commands["mergekit-pytorch --help"] = [str(others / "bin/mergekit-pytorch"), "--help"]
    rivals = ("mergekit-pytorch --help",)
    yield Contest("start-up", "help", commands, "wise --help", "python, nothing", repeat=options.repeat, rivals=rivals)

    pair, out = make_pair(home, "float32", "safetensors", 0.001), home / "out"
    commands = {
        name: command
        for name, command in contestants(pair, out).items()
        if name in ("wise merge", "cp", "load both, mix, save_file")
    }
    if others is not None:
        commands |= other_tools(pair, out, others)
    bring_to_rest(pair, out)
    what = f"merge, a pair of {pair[0].stat().st_size / 1e6:.1f} MB"
    rivals = [name for name in commands if name not in ("wise merge", "cp")]
    yield Contest("start-up", what, commands, "wise merge", "cp", repeat=options.repeat, rivals=rivals)
