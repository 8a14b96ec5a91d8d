"""The commands ``wise data ...``: getting data sets."""

from typing import TYPE_CHECKING

import typer

from mergekit_wise.cli.command import Group
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import FetchOptions


data = typer.Typer(cls=Group, help="Get data sets.", no_args_is_help=True, rich_markup_mode=None)


@data.callback()
def _group() -> None:
    """Get data sets."""


def fetch(options: "FetchOptions", json: bool) -> None:
    """Download a data set from the Hugging Face hub and check it. Complete files are not fetched again."""
    from mergekit_wise.api.fetch_data import fetch_data
    from mergekit_wise.cli.console import out, show_json
    from mergekit_wise.cli.progress import perform
    from mergekit_wise.wording import in_bytes

    fetched = perform(fetch_data, options)
    if json:
        show_json(fetched.to_dict())
        return
    of = f" of {fetched.expected:,}" if fetched.expected not in (None, fetched.images) else ""
    size = in_bytes(fetched.size)
    out.print(
        f"{fetched.folder}: {fetched.images:,}{of} images in {plural(fetched.files, 'file')}, {size}", soft_wrap=True
    )
