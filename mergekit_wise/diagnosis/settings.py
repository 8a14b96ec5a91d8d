"""What changes how ``wise`` works in this folder and environment: ``wise.toml`` and variables. Shows no secrets."""

import os
from collections.abc import Mapping
from pathlib import Path

from mergekit_wise import config
from mergekit_wise.diagnosis.finding import Finding, Section, place
from mergekit_wise.errors import UsageError
from mergekit_wise.wording import listed, shown

VARIABLES = (
    "WISE_DATA",
    "WISE_CACHE",
    "WISE_CACHE_LIMIT",
    "WISE_RENDEZVOUS_MINUTES",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "PYTHONPATH",
    "XDG_CACHE_HOME",
)
"""Variables whose values are no secrets."""


def settings(folder: Path | None = None, environment: Mapping[str, str] = os.environ) -> Section:
    """The configuration file in a folder, by default the working folder, and the variables that are set.

    Args:
        folder: where ``wise.toml`` is looked for.
        environment: the environment variables.
    """
    found = [_file((folder or Path()) / config.FILE)]
    for name in VARIABLES:
        if value := environment.get(name):
            parts = [place(part) for part in value.split(os.pathsep)] if os.name != "nt" else [value]
            found.append(Finding(name, shown(os.pathsep.join(parts), 200)))
    return Section("Settings", tuple(found))


def _file(path: Path) -> Finding:
    if not os.path.lexists(path):
        return Finding(config.FILE, "none in this folder")
    try:
        table = config.read(path)
    except UsageError as error:
        return Finding(config.FILE, "", "problem", f"{str(error).rstrip('.')}; correct it, or give --no-config")
    wrong = list(config.faults(table))
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Finding(config.FILE, "", "problem", f"{wrong[0].rstrip('.')}{more}; correct it, or give --no-config")
    return Finding(config.FILE, f"gives {listed(table, 12)}" if table else "empty")
