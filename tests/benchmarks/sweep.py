"""What a sweep of eleven alphas costs beside its parts, and beside eleven merges and evaluations.

Seconds are those of the work after imports.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from contest import Contest
from evaluate import BATCH_SIZE, prepare

RUN = Path(__file__).with_name("sweep_run.py")


def contests(home: Path, options: Namespace) -> Iterator[Contest]:
    """Ends that differ everywhere, and ends whose heads alone differ."""
    folder, _ = prepare(home, options.model, options.sweep_images)
    ends = home / f"ends-{options.model}"
    if not ends.exists():
        subprocess.run([sys.executable, str(RUN), "ends", str(ends), options.model], check=True)
    device, precision = ("cuda", "bf16") if options.cuda else ("cpu", "fp32")
    words = [str(ends), options.model, str(folder / "folders"), str(BATCH_SIZE), precision, device]

    def command(name: str) -> list[str]:
        return [sys.executable, str(RUN), name, *words]

    parts = {"one decoding": command("decoding"), "one forward pass": command("forward")}
    commands = {
        "wise sweep": command("whole"),
        **parts,
        "11 × wise merge, wise eval": command("separate"),
    }
    what = f"{options.model}, 11 alphas, {options.sweep_images} images, {precision} on {device}"
    bound = "one decoding and 11 forward passes"
    sums = {bound: {"one decoding": 1, "one forward pass": 11}}
    yield Contest("sweep", what, commands, "wise sweep", bound, whole=False, repeat=options.repeat, sums=sums)
    commands = {"wise sweep": command("linear"), "one wise eval": command("one")}
    what = f"{what}, heads differ alone"
    yield Contest("sweep", what, commands, "wise sweep", "one wise eval", whole=False, repeat=options.repeat)
