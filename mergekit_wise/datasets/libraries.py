"""ImageNet's classes as timm and open_clip ship them. Read as files: neither is imported, nothing is executed.

Knows nothing of images.
"""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mergekit_wise.errors import SuiteError


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet, sorted; a class's number is its place here (timm)."""
    return _timm_lines("imagenet_synsets.txt", 1000)


@cache
def subset_columns(subset: str) -> tuple[int, ...]:
    """The classes of ImageNet-R (`subset` "r") or ImageNet-A ("a") among the 1000, in ascending order (timm)."""
    place = {wnid: index for index, wnid in enumerate(imagenet_wnids())}
    return tuple(sorted(place[wnid] for wnid in _timm_lines(f"imagenet_{subset}_synsets.txt", 200)))


def imagenet_classnames() -> tuple[str, ...]:
    """open_clip's names of the 1000 classes."""
    return _open_clip_texts("IMAGENET_CLASSNAMES")


def imagenet_templates() -> tuple[str, ...]:
    """OpenAI's 80 prompts for ImageNet, with {} for the class name (open_clip)."""
    return _open_clip_texts("OPENAI_IMAGENET_TEMPLATES")


def simple_templates() -> tuple[str, ...]:
    """OpenAI's 7 prompts that do nearly as well (open_clip)."""
    return _open_clip_texts("SIMPLE_IMAGENET_TEMPLATES")


def _timm_lines(name: str, count: int) -> tuple[str, ...]:
    lines = tuple(_shipped("timm", Path("data", "_info", name)).split())
    if len(lines) != count:
        raise SuiteError(f"timm's {name}: expected {count} lines, found {len(lines)}. Install timm again.")
    return lines


@cache
def _open_clip_texts(variable: str) -> tuple[str, ...]:
    """The texts of a tuple or list in open_clip's source; of a prompt that is a lambda, what it would format."""
    source = _shipped("open_clip", Path("zero_shot_metadata.py"))
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [variable]:
            assert isinstance(node.value, (ast.Tuple, ast.List))
            return tuple(_text(entry) for entry in node.value.elts)
    raise SuiteError(
        f"open_clip's zero_shot_metadata.py has no {variable}; install the open_clip_torch that wise names."
    )


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Lambda):
        return _text(node.body)
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(part, ast.FormattedValue) else _text(part) for part in node.values)
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, str)
    return node.value


def _shipped(library: str, path: Path) -> str:
    spec = find_spec(library)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / path).is_file():
            return (Path(folder) / path).read_text(encoding="utf-8")
    raise SuiteError(f"{library} is not installed with its {path}: pip install --force-reinstall open_clip_torch timm")
