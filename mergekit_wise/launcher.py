"""What torchrun sets in the environment of each process that it starts. Imports no torch.

Job schedulers set some of these variables for processes that have nothing to do with each other. Processes of one run
need all of `VARIABLES`; where one is missing, the process is alone: rank 0 of 1.
"""

import os

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
"""What a process must know to find the others; torch itself asks for MASTER_PORT with a sentence of ours."""

_LOCAL = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")
"""Where the number of a process on its machine stands: of torchrun, of Slurm's srun, of Open MPI's mpirun."""


def world_size() -> int:
    """The number of processes of the run; 1 for a process that was started by itself."""
    return _number("WORLD_SIZE", 1) if all(map(os.environ.get, VARIABLES)) else 1


def rank() -> int:
    """The number of this process among all processes of the run."""
    return _number("RANK", 0) if world_size() > 1 else 0


def local_rank() -> int | None:
    """The number of this process on its machine, which is also the number of its GPU; None if nothing says it."""
    found = [_number(name, -1) for name in _LOCAL] if world_size() > 1 else [0]
    return next((number for number in found if number >= 0), None)


def local_world_size() -> int:
    """The number of processes of the run on this machine, which share its cores."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1)) if world_size() > 1 else 1


def note() -> str:
    """A sentence for a process that is alone, though the environment counts several; empty for all others."""
    size = _number("WORLD_SIZE", 1)
    if size < 2 or world_size() > 1:
        return ""
    missing = " and ".join(name for name in VARIABLES if not os.environ.get(name))
    return (
        f"the environment has WORLD_SIZE={size}, but no {missing}, so this process works alone. To share the work, "
        "start the processes with torchrun"
    )


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
