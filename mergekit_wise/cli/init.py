"""The command ``wise init``."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.options import InitOptions


def init(options: "InitOptions") -> None:
    """Write a commented wise.toml for the checkpoints and images in a folder."""
    from mergekit_wise.api.init import starting_config
    from mergekit_wise.checkpoint import write_atomically
    from mergekit_wise.cli.console import out
    from mergekit_wise.config import FILE
    from mergekit_wise.errors import UsageError

    path = Path(options.folder) / FILE
    if path.exists() and not options.force:
        raise UsageError(f"{path} exists. Edit it, or replace it with --force.")
    write_atomically(path, starting_config(Path(options.folder)))
    out.print(f"Wrote {path}. Check its lines, then run 'wise sweep' or 'wise merge' in that folder.", soft_wrap=True)
