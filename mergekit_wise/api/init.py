"""A first ``wise.toml`` for a folder: its checkpoints and images, and the most used options as comments."""

import json
from collections.abc import Iterable
from pathlib import Path

from mergekit_wise.checkpoint import write_atomically
from mergekit_wise.config import FILE
from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import takes
from mergekit_wise.options import InitOptions

ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
ZEROSHOT_HINTS = ("zs", "zero", "base", "pretrain", "clip")
FINETUNED_HINTS = ("ft", "fine", "tuned")
OUTPUT_HINTS = ("merged", "wise-", "soup")
TRAINING_HINTS = ("train",)


@takes(InitOptions)
def init(options: InitOptions) -> Path:
    """Write a commented ``wise.toml`` for the checkpoints and images in a folder; returns its path.

    Raises UsageError if there is one already, unless `force` is given; OutputError if it cannot be written.
    """
    path = Path(options.folder) / FILE
    if path.exists() and not options.force:
        raise UsageError(f"{path} exists. Edit it, or replace it with --force.")
    write_atomically(path, starting_config(Path(options.folder)))
    return path


def starting_config(folder: Path) -> str:
    """The text of a ``wise.toml`` for `folder`; what could not be decided is a comment with the candidates.

    Looks at names alone: of files that end like checkpoints, and of folders of class folders.
    """
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    checkpoints = [path.name for path in entries if _is_checkpoint(path)]
    sources = [name for name in checkpoints if not any(hint in name.lower() for hint in OUTPUT_HINTS)]
    finetuned = _only(name for name in sources if _has(name, FINETUNED_HINTS))
    zeroshot = _only(name for name in sources if name != finetuned and _has(name, ZEROSHOT_HINTS))
    if len(sources) == 2:  # the other one is what is missing
        finetuned = finetuned or next((name for name in sources if name != zeroshot), "") if zeroshot else finetuned
        zeroshot = zeroshot or next((name for name in sources if name != finetuned), "") if finetuned else zeroshot
    image_sets = [name for path in entries if path.is_dir() for name in _image_sets(path)]
    measured = [name for name in image_sets if not any(hint in name.lower() for hint in TRAINING_HINTS)]
    lines = [
        "# Options for the wise commands that are run in this folder; the command line wins over this file.",
        "# Names are those of the options without dashes: see 'wise merge --help'.",
        "",
        "# For every command that has such an option:",
        _line("zeroshot", zeroshot, sources, "zs.safetensors"),
        _line("finetuned", finetuned, sources, "ft.safetensors"),
        "# What to evaluate on: suites, data sets (see 'wise suites'), or folders with a folder per class.",
        f"suite = {json.dumps(measured)}" if measured else '# suite = "imagenet-shifts"',
        '# data = "/data"            # root folder of the data sets',
        '# device = "cuda"',
        "",
        "[merge]",
        'output = "merged.safetensors"',
        "# alpha = 0.5              # 0 is the zero-shot model, 1 the fine-tuned one",
        "",
        "[sweep]",
        '# alphas = "0:1:0.1"',
        '# prefer = "average"       # or reference, shifts, both, no-regret',
        "",
    ]
    return "\n".join(lines)


def _is_checkpoint(path: Path) -> bool:
    is_folder = path.is_dir() and (path / "config.json").exists() and any(path.glob("*.safetensors"))
    return path.suffix in ENDINGS or is_folder


def _image_sets(folder: Path) -> list[str]:
    """The folder itself, if it holds class folders of images, or those of its folders that do."""
    if _holds_classes(folder):
        return [folder.name]
    return [f"{folder.name}/{part.name}" for part in sorted(folder.iterdir()) if part.is_dir() and _holds_classes(part)]


def _holds_classes(folder: Path) -> bool:
    endings = {".jpg", ".jpeg", ".png", ".webp"}
    classes = [part for part in folder.iterdir() if part.is_dir() and not part.name.startswith(".")]
    return len(classes) > 1 and any(file.suffix.lower() in endings for file in classes[0].iterdir())


def _has(name: str, hints: Iterable[str]) -> bool:
    return any(hint in name.lower() for hint in hints)


def _only(names: Iterable[str]) -> str:
    found = list(names)
    return found[0] if len(found) == 1 else ""


def _line(key: str, value: str, candidates: list[str], example: str) -> str:
    if value:
        return f"{key} = {json.dumps(value)}"
    found = f"  # found: {', '.join(candidates)}" if candidates else ""
    return f"# {key} = {json.dumps(example)}{found}"
