"""The commands ``wise data ...``: getting data sets."""

from typing import Annotated

import typer

from mergekit_wise.cli import options
from mergekit_wise.cli.config import App

data = App(help="Get data sets.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A data set, as 'wise suites' calls it.")]


@data.callback()
def _group() -> None:
    """Get data sets."""


@data.command("fetch")
def fetch(name: Name, root: options.Data = None, as_json: options.AsJson = False) -> None:
    """Download a data set from the Hugging Face hub, and check it. What is complete is not fetched again."""
    from mergekit_wise.api.fetch_data import fetch_data
    from mergekit_wise.cli.console import in_bytes, out, show_json
    from mergekit_wise.cli.progress import bars

    with bars() as progress:
        fetched = fetch_data(name, root, progress=progress)
    if as_json:
        entry = {"name": name, "folder": str(fetched.folder), "files": fetched.files, "bytes": fetched.size}
        show_json({**entry, "images": fetched.images, "expected": fetched.expected})
        return
    of = f" of {fetched.expected:,}" if fetched.expected not in (None, fetched.images) else ""
    out.print(
        f"{fetched.folder}: {fetched.images:,}{of} images in {fetched.files} files, {in_bytes(fetched.size)}",
        markup=False,
        soft_wrap=True,
    )
