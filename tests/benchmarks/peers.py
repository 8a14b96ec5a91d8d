"""Environments for the other tools, each on top of the packages of the environment that we run in."""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

MERGERS = ("mergekit", "sd-mecha")
EVALUATORS = ("clip-benchmark", "webdataset", "braceexpand", "numpy<2.4")
"""Without what only captions and other tasks need. CLIP_benchmark 1.6.2 fails with numpy 2.4, which makes no number of
[1]."""


def environment(home: Path, name: str, packages: Sequence[str], *, dependencies: bool = True) -> Path | None:
    """The environment's folder, made unless it is there; None, and a word why, if there can be none."""
    folder = home / f"peers-{name}"
    if folder.exists():
        return folder
    python = str(folder / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # --system-site-packages would show the base interpreter's packages, not those of the environment we run in.
    below = folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages" / "below.pth"
    below.write_text(sysconfig.get_path("purelib") + "\n")
    alone = [] if dependencies else ["--no-deps"]
    pip = subprocess.run([python, "-m", "pip", "install", "-q", *alone, *packages], capture_output=True, text=True)
    if pip.returncode == 0:
        return folder
    reason = (pip.stderr.strip().splitlines() or ["no message"])[-1]
    print(f"{', '.join(packages)} could not be installed and take no part: {reason}", file=sys.stderr)
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    return None


def versions(folder: Path | None, packages: Sequence[str]) -> list[str]:
    """`NAME VERSION` of each of the packages in the environment."""
    if folder is None:
        return []
    command = [str(folder / "bin" / "python"), "-m", "pip", "list", "--format=json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    named = {package["name"].lower().replace("_", "-"): package["version"] for package in found}
    return [f"{name} {named[name]}" for name in packages if name in named]
