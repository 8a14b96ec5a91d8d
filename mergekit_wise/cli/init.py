"""The command ``wise init``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.options import InitOptions


def init(options: "InitOptions") -> None:
    """Write a commented wise.toml for the checkpoints and images in a folder."""
    from mergekit_wise.api.init import init
    from mergekit_wise.cli.console import out
    from mergekit_wise.option_types import run

    path = run(init, options)
    out.print(f"Wrote {path}. Check its lines, then run 'wise sweep' or 'wise merge' in that folder.", soft_wrap=True)
