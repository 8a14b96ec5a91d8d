"""The command ``wise init``."""

from pathlib import Path

from mergekit_wise import config
from mergekit_wise.errors import UsageError
from mergekit_wise.options import InitOptions


def init(options: InitOptions) -> None:
    """Write a commented wise.toml for the checkpoints and images in a folder."""
    from mergekit_wise.api.init import starting_config
    from mergekit_wise.cli.console import out

    path = Path(options.folder) / config.FILE
    if path.exists() and not options.force:
        raise UsageError(f"{path} exists. Edit it, or replace it with --force.")
    path.write_text(starting_config(Path(options.folder)), encoding="utf-8")
    out.print(f"Wrote {path}. Check its lines, then run 'wise sweep' or 'wise merge' in that folder.", soft_wrap=True)
