"""What a sweep of eleven alphas costs beside its parts, and beside eleven merges and evaluations.

Seconds are those of the work after imports.
"""

import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from contest import Contest
from evaluate import BATCH_SIZE, prepare

RUN = Path(__file__).with_name("sweep_run.py")


def contests(home: Path, options: Namespace) -> Iterator[Contest]:
    """Ends that differ everywhere, ends whose heads or upper halves alone differ, and what is kept of the answers."""
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
    timed = {"whole": False, "repeat": options.repeat}
    yield Contest(
        "sweep", what, commands, "wise sweep", bound, **timed, sums=sums, rivals=("11 × wise merge, wise eval",)
    )
    commands = {"wise sweep": command("linear"), "one wise eval": command("one")}
    what = f"{what}, heads differ alone"
    yield Contest("sweep", what, commands, "wise sweep", "one wise eval", **timed)
    halves = f"{what.rpartition(', ')[0]}, lower half frozen"
    commands = {"wise sweep": command("frozen"), "the same, nothing frozen": command("whole")}
    yield Contest("sweep", halves, commands, "wise sweep", **timed, rivals=("the same, nothing frozen",))
    words[2] = str(_with_many_classes(folder / "folders", home / f"many-{options.sweep_images}"))
    commands = {
        "wise sweep": command("many"),
        "wise sweep --no-answers": command("unkept"),
        "wise sweep --analyze": command("analyzed"),
    }
    classes = f"{what.rpartition(', ')[0]}, 1,000 classes"
    yield Contest("sweep", classes, commands, "wise sweep", **timed)


def _with_many_classes(source: Path, folder: Path) -> Path:
    """The images of a folder under 1,000 classes, of which some have no image."""
    images = sorted(path for path in source.rglob("*.*") if path.is_file())
    for number in range(1000):
        (folder / f"class{number:03d}").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(images):
        shutil.copy(path, folder / f"class{number % 1000:03d}" / path.name)
    return folder
