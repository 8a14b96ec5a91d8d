"""Class names and prompt templates: from text files, from lists, or the well-known ones by name.

ImageNet's classes and OpenAI's templates are read from the files that timm and open_clip ship. Neither library is
imported, and nothing in the files is executed. This module knows nothing of images, tokens or text encoders.
"""

import ast
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean

PLAIN = ("a photo of a {}.",)
_MAX_BYTES = 1 << 24


def read_classnames(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Read class names: a list, a name in `CLASSNAMES`, or a UTF-8 text file with one class name per line.

    Raises SuiteError if the file does not exist or holds no class names.
    """
    if not isinstance(source, (str, Path)):
        return tuple(source)
    if str(source) in CLASSNAMES and not Path(source).exists():
        return CLASSNAMES[str(source)]()
    return _lines(Path(source), "class names", CLASSNAMES)


def read_templates(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Read prompt templates: a list, a name in `TEMPLATES`, or a UTF-8 text file with one template per line.

    Each template has one ``{}`` for the class name. Files may also write ``{c}``, as clip-benchmark does. Raises
    SuiteError if the file does not exist, or if a template has no place for a class name or more than one.
    """
    if not isinstance(source, (str, Path)):
        return tuple(_template(text, "a template") for text in source)
    if str(source) in TEMPLATES and not Path(source).exists():
        return TEMPLATES[str(source)]()
    return tuple(_template(text, str(source)) for text in _lines(Path(source), "templates", TEMPLATES))


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet in ascending order, so that a class's index is its label (timm)."""
    return _timm_lines("imagenet_synsets.txt", 1000)


@cache
def subset_columns(subset: str) -> tuple[int, ...]:
    """The labels that ImageNet-R (`subset` "r") or ImageNet-A ("a") has of the 1000, in ascending order (timm)."""
    label_of = {wnid: label for label, wnid in enumerate(imagenet_wnids())}
    return tuple(sorted(label_of[wnid] for wnid in _timm_lines(f"imagenet_{subset}_synsets.txt", 200)))


@cache
def imagenet_real_labels() -> tuple[frozenset[int], ...]:
    """ImageNet-ReaL's labels of each of the 50,000 validation images, in the order of their numbers (timm)."""
    lists = json.loads(_library_file("timm", Path("data", "_info", "imagenet_real_labels.json")))
    return tuple(frozenset(labels) for labels in lists)


def imagenet_lemmas() -> tuple[str, ...]:
    """WordNet's names of ImageNet's 1000 classes: the synonyms of each, separated by a comma and a blank (timm)."""
    lines = _library_file("timm", Path("data", "_info", "imagenet_synset_to_lemma.txt")).splitlines()
    lemma_of = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(lemma_of[wnid].strip() for wnid in imagenet_wnids())


def imagenet_classnames() -> tuple[str, ...]:
    """The names of the 1000 classes of ImageNet (open_clip)."""
    return _open_clip_texts("IMAGENET_CLASSNAMES")


def imagenet_templates() -> tuple[str, ...]:
    """OpenAI's 80 templates for ImageNet (open_clip)."""
    return _open_clip_texts("OPENAI_IMAGENET_TEMPLATES")


def simple_templates() -> tuple[str, ...]:
    """The 7 best of OpenAI's templates for ImageNet (open_clip)."""
    return _open_clip_texts("SIMPLE_IMAGENET_TEMPLATES")


CLASSNAMES: Mapping[str, Callable[[], tuple[str, ...]]] = {"imagenet": imagenet_classnames}
"""Class names that are known by name. A file of that name in the working folder takes precedence."""

TEMPLATES: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "openai": imagenet_templates,
    "imagenet": imagenet_templates,  # an alias
    "simple": simple_templates,
    "plain": lambda: PLAIN,
}
"""Templates that are known by name. A file of that name in the working folder takes precedence."""


def _lines(path: Path, content: str, known: Collection[str]) -> tuple[str, ...]:
    refuse_web_page(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SuiteError(
                f"{path}: expected a text file of {content} with at most {_MAX_BYTES:,} bytes, found "
                f"{path.stat().st_size:,} bytes."
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SuiteError(
            f"{path}: no such file of {content}, and no known {content} have that name.{did_you_mean(str(path), known)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: expected {content} in UTF-8, one per line: {error}.") from error
    lines = tuple(line.strip() for line in text.rstrip().splitlines())
    if not lines or "" in lines:
        found = f"that line {lines.index('') + 1} is empty" if lines else "an empty file"
        raise SuiteError(f"{path}: expected {content}, one per line, found {found}.")
    return lines


def _template(text: str, location: str) -> str:
    template = text.replace("{c}", "{}")
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise SuiteError(f"{location}: expected one {{}} for the class name in each template, found {text!r}.")
    return template


def _timm_lines(name: str, count: int) -> tuple[str, ...]:
    lines = tuple(_library_file("timm", Path("data", "_info", name)).split())
    if len(lines) != count:
        raise SuiteError(
            f"timm's {name}: expected {count} lines, found {len(lines)}. Run: pip install --force-reinstall timm"
        )
    return lines


@cache
def _open_clip_texts(variable: str) -> tuple[str, ...]:
    """The strings of a tuple or list in open_clip's source; a template that is a lambda gives its format string."""
    source = _library_file("open_clip", Path("zero_shot_metadata.py"))
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [variable]:
            assert isinstance(node.value, (ast.Tuple, ast.List))
            return tuple(_string(element) for element in node.value.elts)
    raise SuiteError(
        f"open_clip's zero_shot_metadata.py does not define {variable}. "
        "Install a version of open_clip_torch that mergekit-wise supports."
    )


def _string(node: ast.expr) -> str:
    if isinstance(node, ast.Lambda):
        return _string(node.body)
    if isinstance(node, ast.JoinedStr):
        return "".join("{}" if isinstance(part, ast.FormattedValue) else _string(part) for part in node.values)
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, str)
    return node.value


def _library_file(library: str, path: Path) -> str:
    spec = find_spec(library)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / path).is_file():
            return (Path(folder) / path).read_text(encoding="utf-8")
    raise SuiteError(f"{library}'s file {path} was not found. Run: pip install --force-reinstall open_clip_torch timm")
