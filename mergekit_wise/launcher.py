"""What torchrun sets in the environment of each process that it starts. Imports no torch."""

import os


def world_size() -> int:
    """The number of processes of the run; 1 for a process that was started by itself."""
    return _number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def rank() -> int:
    """The number of this process among all processes of the run."""
    return _number("RANK", 0)


def local_rank() -> int:
    """The number of this process on its machine, which is also the number of its GPU."""
    return _number("LOCAL_RANK", 0)


def local_world_size() -> int:
    """The number of processes of the run on this machine, which share its cores."""
    return _number("LOCAL_WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
