"""The devices that torch finds, each tried with a small computation. Importing torch takes seconds."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mergekit_wise.diagnosis.finding import Finding, Section

DRIVER = Path("/proc/driver/nvidia/version")
"""Exists where the NVIDIA driver is loaded, on Linux."""

LONGEST_REASON = 300
"""Characters of an error of torch's that are shown."""


def devices(
    load: Callable[[], Any] | None = None,
    accepted: Callable[[], Iterable[tuple[str, str]]] | None = None,
    has_driver: bool | None = None,
) -> Section:
    """The devices that ``--device`` accepts, and why there is no GPU if there is none.

    Args:
        load: gives torch; by default it is imported.
        accepted: gives names of devices with descriptions; by default those that `torch_backend` accepts.
        has_driver: whether the machine has an NVIDIA driver; by default it is looked for.
    """
    try:
        torch = (load or _torch)()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return Section("Devices", (_unloadable(error),))
    found = [_tried(torch, "cpu", f"{torch.get_num_threads()} threads")]
    try:
        found += [_tried(torch, name, what) for name, what in (accepted or _accepted)() if name != "cpu"]
    except (RuntimeError, AssertionError) as error:
        found.append(Finding("cuda", "", "problem", f"the GPUs cannot be listed: {_reason(error)}"))
    names = [finding.name for finding in found]
    if not any(name.startswith("cuda") for name in names):
        found.append(_no_cuda(torch, _has_driver() if has_driver is None else has_driver))
    found += _pictures()
    return Section("Devices", tuple(found))


def _torch() -> Any:
    import torch

    return torch


def _accepted() -> Iterable[tuple[str, str]]:
    from mergekit_wise.merging.torch_backend import devices

    return devices()


def _unloadable(error: Exception) -> Finding:
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return Finding("torch", "not installed", "error", "wise needs it for models", "pip install torch torchvision")
    return Finding(
        "torch",
        f"cannot be loaded: {_reason(error)}",
        "error",
        "only files can be merged, inspected and compared",
        "pip install --force-reinstall torch torchvision",
    )


def _pictures() -> list[Finding]:
    """Whether torchvision fits torch: open_clip needs it, and pip does not notice if they are of different builds."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return [
            Finding(
                "torchvision",
                f"cannot be loaded: {_reason(error)}",
                "error",
                "no model can be evaluated or trained; mostly it is of another build than torch",
                "pip install --force-reinstall torch torchvision",
            )
        ]
    return []


def _tried(torch: Any, name: str, what: str) -> Finding:
    """A device on which a product of two small matrices was computed."""
    try:
        ones = torch.ones(8, 8, device=name)
        right = float((ones @ ones).sum().cpu()) == 8**3
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        return Finding(name, what, "problem", f"a computation on it fails: {_reason(error)}")
    if not right:
        return Finding(name, what, "problem", "a computation on it gives a wrong result")
    return Finding(name, f"{what}{_memory(torch, name)}; computes")


def _memory(torch: Any, name: str) -> str:
    if not name.startswith("cuda"):
        return ""
    free, _ = torch.cuda.mem_get_info(name)
    major, minor = torch.cuda.get_device_capability(name)
    return f", {free / 2**30:.0f} GiB of it free, compute capability {major}.{minor}"


def _no_cuda(torch: Any, has_driver: bool) -> Finding:
    """Why there is no CUDA device."""
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    if built is None:
        reason = "none: this torch is built for the CPU"
        if not has_driver:
            return Finding("cuda", reason)
        return Finding(
            "cuda",
            reason,
            "problem",
            "the machine has an NVIDIA driver",
            "pip install --force-reinstall torch torchvision",
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding("cuda", "none: CUDA_VISIBLE_DEVICES hides the GPUs")
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = f"none: {_reason(error)}"
    else:
        reason = "none: torch finds no GPU"
    return Finding("cuda", reason, "problem" if has_driver else "", "the machine has an NVIDIA driver" * has_driver)


def _has_driver() -> bool:
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def _reason(error: Exception) -> str:
    """The first sentence of an error."""
    text = " ".join((str(error) or type(error).__name__).split())
    first = text.split(". ")[0].rstrip(".")
    return first[:LONGEST_REASON]
