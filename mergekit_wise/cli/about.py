"""Versions of what ``wise`` runs on, and the devices that torch finds."""

import platform

import typer

from mergekit_wise import __version__


def print_versions(wanted: bool) -> None:
    """The callback of ``--version``: print the versions of the tool, Python and the main libraries."""
    if not wanted:
        return
    typer.echo(f"mergekit_wise {__version__}")
    typer.echo(f"Python {platform.python_version()}")
    for package in ("torch", "open_clip_torch", "numpy"):
        typer.echo(f"{package} {_version(package)}")
    raise typer.Exit()


def print_devices(wanted: bool) -> None:
    """The callback of ``--devices``: list the devices. Imports torch, which takes seconds."""
    if not wanted:
        return
    from mergekit_wise.merging.torch_backend import devices

    for name, what in devices():
        typer.echo(f"{name:<7} {what}")
    raise typer.Exit()


def _version(package: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
