"""The commands about a project, the cache or the installation: init, recipe, demo, cache and doctor."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.option_types import ABSENT, FilePath, Option, Options, options_class
from mergekit_wise.options.common import MAX_SEED
from mergekit_wise.options.data import DataRoot
from mergekit_wise.progress import Progress, silent

CACHE_KINDS = ("heads", "images", "features", "listings")
"""Those of `cache.KINDS`, which is not imported here because it imports NumPy."""


@options_class(frozen=True)
class InitOptions(Options):
    """The options of ``wise init``."""

    folder: Annotated[
        FilePath, Option("Folder to look at and to write wise.toml in.", metavar="DIR", is_argument=True)
    ] = "."
    _: KW_ONLY
    force: Annotated[bool, Option("Replace an existing wise.toml.")] = False


@options_class(frozen=True)
class RecipeOptions(Options):
    """The options of ``wise recipe``."""

    path: Annotated[
        FilePath,
        Option(
            "TOML file with the tables [zeroshot], [finetune], [sweep] and [report].",
            metavar="RECIPE",
            is_argument=True,
            aliases=("recipe",),
        ),
    ] = "wise.toml"
    _: KW_ONLY
    progress: Progress = silent
    note: Callable[[str], object] = str


@options_class(frozen=True)
class DemoOptions(Options):
    """The options of ``wise demo``."""

    folder: Annotated[
        FilePath,
        Option("Folder for the demo's files.", metavar="DIR", is_argument=True, path="folder", aliases=("dir",)),
    ] = "wise-demo"
    _: KW_ONLY
    seed: Annotated[int, Option("Random seed.", metavar="N", minimum=0, maximum=MAX_SEED)] = 0
    progress: Progress = silent
    note: Callable[[str], object] = str


@options_class(frozen=True)
class CacheLsOptions(Options):
    """The options of ``wise cache ls``, of which there are none."""


@options_class(frozen=True)
class CacheClearOptions(Options):
    """The options of ``wise cache clear``."""

    kind: Annotated[
        str | None,
        Option(
            "Kind of entries to remove: heads, images, features, listings.",
            metavar="KIND",
            is_argument=True,
            choices=CACHE_KINDS,
            default="all kinds",
        ),
    ] = None
    _: KW_ONLY
    older_than: Annotated[
        float | None,
        Option(
            "Remove only what has not been used for so many days.",
            metavar="DAYS",
            minimum=0,
            default="entries of any age",
        ),
    ] = None


@options_class(frozen=True)
class DoctorOptions(Options):
    """The options of ``wise doctor``; `endpoint` is the address of another hub than the usual one."""

    data: DataRoot = ABSENT
    _: KW_ONLY
    endpoint: str | None = None
