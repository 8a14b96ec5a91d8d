"""The image files that a file of captions names: in a folder that is known, or looked for nearby. Reads no caption."""

from pathlib import Path

from mergekit_wise.datasets.captioned_images import CaptionedImages, Gathered
from mergekit_wise.datasets.folders import FolderImages, as_text
from mergekit_wise.datasets.layouts import existing_files
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural, shown


def in_folder(path: Path, root: Path, found: Gathered, notes: tuple[str, ...]) -> CaptionedImages:
    """Captions of the file at `path` with their images, which are named relative to `root`.

    Raises SuiteError if an image does not exist.
    """
    existing = existing_files(root, found.images)
    if missing := [image for image in found.images if image not in existing]:
        raise SuiteError(
            f"{path}: {plural(len(missing), 'image')} of {len(found.images):,} {'does' if len(missing) == 1 else 'do'} "
            f"not exist, such as {shown(missing[0])}, relative to {root}. Unpack them there, or leave their captions "
            "out."
        )
    images, name = FolderImages(str(root), found.images), as_text(path.stem)
    return CaptionedImages.of(name, images, found, root, notes)


def nearby_folder(path: Path, found: Gathered) -> Path:
    """The folder that has the first image: the file's own, one in it, the one above, or one in that.

    The file's own if none has it, so that the images are reported as missing.
    """
    here = path.resolve().parent
    for near in ([here, *_folders(here)], [here.parent, *_folders(here.parent)]):
        holding = [place for place in near if (place / found.images[0]).is_file()]
        if len(holding) > 1:
            raise SuiteError(
                f"{path}: {shown(found.images[0])} lies both in {holding[0]} and in {holding[1]}, so it is unclear "
                f"which images are meant. Move {path.name} next to the right ones, into a folder without others."
            )
        if holding:
            return holding[0]
    return path.parent


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(inside for inside in place.iterdir() if inside.is_dir() and not inside.name.startswith("."))
    except OSError:  # the folder above may be private
        return []
