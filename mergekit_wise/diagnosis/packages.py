"""Which packages are installed, and in which versions, as their metadata says: none of them is imported.

What is required, and from which version on, is read from the metadata of this package, which pip wrote from
``pyproject.toml``.
"""

import platform
import re
from collections.abc import Callable, Iterable
from importlib import import_module, metadata

from mergekit_wise import __version__
from mergekit_wise.diagnosis.finding import Finding, Section

PROJECT = "mergekit-wise"

FIRST = ("torch", "torchvision", "open_clip_torch", "timm", "safetensors", "numpy")
"""The packages that results depend on most."""

OPTIONAL = {
    "scikit-learn": ("the suite 'digits' and wise demo", f"'{PROJECT}[demo]'"),
    "pyarrow": ("parquet and arrow files", f"'{PROJECT}[parquet]'"),
    "transformers": ("tokenizers of Hugging Face models, and the callback for its Trainer", "transformers"),
    "pandas": ("to_frame() of results in Python", "pandas"),
    "lightning": ("the callback for its Trainer", "lightning"),
    "tensorboard": ("wise finetune --track tensorboard", "tensorboard"),
    "wandb": ("wise finetune --track wandb", "wandb"),
    "fsspec": ("data sets in object stores", "fsspec"),
    "s3fs": ("data sets at s3:// addresses", "s3fs"),
    "gcsfs": ("data sets at gs:// addresses", "gcsfs"),
}
"""For each package that only some work needs: this work, and what pip calls it."""

COMPILED = {
    "mergekit_wise.merging._native": ("merging", "merges take several times as long, with the same bytes"),
    "mergekit_wise.models._resample": ("resizing", "images are resized more slowly, with the same pixels"),
    "mergekit_wise.checkpoint._guard": (
        "file guard",
        "files are read instead of mapped, because a mapped file that becomes shorter would end the process; that "
        "takes a third more processor time",
    ),
}
"""For each compiled module: what it is for, and what follows where it is missing."""

REINSTALL = f"pip install --force-reinstall --no-deps {PROJECT}"

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*\(?(?:>=\s*([0-9.]+))?[^;]*(?:;(.*))?")


def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed, or if its metadata is damaged."""
    try:
        return metadata.version(package) or None
    except (metadata.PackageNotFoundError, KeyError, OSError):
        return None


def requirements() -> list[str] | None:
    """What the installed package says that it needs; None if it is run from a folder without being installed."""
    try:
        return metadata.requires(PROJECT)
    except metadata.PackageNotFoundError:
        return None


def versions(
    required: Iterable[str] | None = None, version_of: Callable[[str], str | None] = installed_version
) -> Section:
    """The versions of the tool, of Python and of every package that it needs.

    Args:
        required: requirements as in a package's metadata, ``numpy>=2.0``; by default those of this package.
        version_of: gives the version of an installed package.
    """
    system = f"{platform.python_implementation()}, {platform.system()} {platform.release()}, {platform.machine()}"
    found = [Finding("mergekit_wise", __version__), Finding("Python", f"{platform.python_version()} ({system})")]
    lines = requirements() if required is None else required
    if lines is None:
        found.append(
            Finding(
                "installation",
                level="note",
                text="this copy was not installed by pip, so which versions it needs is not known",
            )
        )
    lowest = {"torchvision": ""} | dict(_needed(lines or FIRST))
    order = {name: place for place, name in enumerate(FIRST)}
    for name in sorted(lowest, key=lambda name: (order.get(name, len(order)), name.lower())):
        found.append(_needed_package(name, lowest[name], version_of(name)))
    return Section("Versions", tuple(found))


def _needed(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Name and lowest version of each requirement that is not one of an extra."""
    for line in lines:
        parts = _REQUIREMENT.match(line)
        if parts and "extra" not in (parts[3] or ""):
            yield parts[1], parts[2] or ""


def _needed_package(name: str, lowest: str, version: str | None) -> Finding:
    wanted = f"'{name}>={lowest}'" if lowest else name
    if version is None:
        return Finding(name, "not installed", "error", "wise needs it", f"pip install {wanted}")
    if lowest and _numbers(version) < _numbers(lowest):
        text = f"older than {lowest}, the oldest that is tested"
        return Finding(name, version, "problem", text, f"pip install {wanted}")
    return Finding(name, version)


def _numbers(version: str) -> list[int]:
    """The numbers of a version without zeros at the end, so that 2 and 2.0 are the same."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def compiled_modules(modules: Iterable[str] | None = None, system: str = "") -> Section:
    """Whether the compiled modules can be loaded.

    Args:
        modules: keys of `COMPILED`; by default those that there are on the system.
        system: as `platform.system` says it, by default that of this machine.
    """
    on_windows = (system or platform.system()) == "Windows"
    known = [name for name in COMPILED if not (on_windows and name.endswith("_guard"))]
    return Section("Compiled modules", tuple(map(_compiled, known if modules is None else modules)))


def _compiled(module: str) -> Finding:
    name, consequence = COMPILED[module]
    try:
        import_module(module)
    except ModuleNotFoundError:
        reason = "not there; it was probably installed from source without a C compiler"
    except ImportError as error:
        reason = f"cannot be loaded ({str(error).splitlines()[0]})" if str(error) else "cannot be loaded"
    else:
        return Finding(name, "loaded")
    return Finding(name, reason, "problem", consequence, REINSTALL)


def optional_packages(version_of: Callable[[str], str | None] = installed_version) -> Section:
    """The packages that only some work needs."""
    found = []
    for name, (use, wanted) in OPTIONAL.items():
        version = version_of(name)
        if version is None:
            found.append(Finding(name, f"not installed; for {use}", command=f"pip install {wanted}"))
        else:
            found.append(Finding(name, version))
    return Section("Optional packages", tuple(found))
