"""Class names and prompt templates: from text files, from lists, or the well-known ones by name.

ImageNet's classes and OpenAI's templates are read from the files that timm and open_clip ship. Neither library is
imported, and nothing in the files is executed. This module knows nothing of images, tokens or text encoders.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.datasets.word_lists import WNID, parse_words, string_of, unquoted
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import did_you_mean, listed, plural, shown

PLAIN = ("a photo of a {}.",)
Note = Callable[[str], object]
"""Is called with a sentence for the user."""

_MAX_BYTES = 1 << 24
_PLACE = re.compile(r"\{(?:0|[A-Za-z_]\w*)\}|%s|[\[<](?:class|classname|class_name|name|label)[\]>]", re.IGNORECASE)
"""The place for a class name as other tools write it."""


def unheard(_: str) -> None:
    """For callers that need no notes."""


def read_classnames(source: str | Path | Sequence[str], note: Note = unheard) -> tuple[str, ...]:
    """Read class names: a list, a name in `CLASSNAMES`, or a UTF-8 text file (see `parse_words`).

    `note` is called with a sentence on what was removed around the names, and on names that several classes have.
    Raises SuiteError if the file does not exist, or holds anything but class names.
    """
    if not isinstance(source, (str, Path)):
        names, where = tuple(source), "class names"
    elif str(source) in CLASSNAMES and not Path(source).is_file():
        names, where = CLASSNAMES[str(source)](), str(source)
    else:
        names, where = _read(Path(source), "class names", CLASSNAMES, note), str(source)
    _require_names(names, where)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        verb = "is" if len(repeated) == 1 else "are"
        note(
            f"{where}: {plural(len(repeated), 'name')} {verb} that of several classes, "
            f"which zero-shot heads cannot tell apart: {listed(map(repr, repeated), 3)}"
        )
    return names


def read_templates(source: str | Path | Sequence[str], note: Note = unheard) -> tuple[str, ...]:
    """Read prompt templates: a list, a name in `TEMPLATES`, or a UTF-8 text file (see `parse_words`).

    Each template has one place for the class name: ``{}``, or as other tools write it ``{c}``, ``{name}``, ``%s`` or
    ``[CLASS]``, which `note` is called with once. Raises SuiteError if the file does not exist, or if a template has no
    place for a class name or more than one.
    """
    if not isinstance(source, (str, Path)):
        texts, where = tuple(source), "a template"
    elif str(source) in TEMPLATES and not Path(source).is_file():
        return TEMPLATES[str(source)]()
    else:
        texts, where = _read(Path(source), "templates", TEMPLATES, note), str(source)
    templates = tuple(_template(text, where) for text in texts)
    changed = [pair for pair in zip(texts, templates, strict=True) if pair[0].replace("{c}", "{}") != pair[1]]
    if changed:
        note(f"{where}: {plural(len(changed), 'template')} rewritten with {{}}, such as {changed[0][0]!r}")
    return templates


def prompt_names(classnames: Sequence[str]) -> tuple[str, ...]:
    """What prompts call the classes: blanks for underscores, and ImageNet's names for its WordNet ids."""
    named = _names_of_wnids() if any(map(WNID.fullmatch, classnames)) else {}
    return tuple(named.get(name, name.replace("_", " ").strip() or name) for name in classnames)


def notes_on_prompts(classnames: Sequence[str]) -> Iterator[str]:
    """Sentences on class names that are no words, for whoever makes a zero-shot head of them."""
    total = plural(len(classnames), "class name")
    ids = [name for name in classnames if WNID.fullmatch(name)]
    named = _names_of_wnids() if ids else {}
    known = [name for name in ids if name in named]
    if known:
        yield (
            f"{len(known)} of {total} {'is a WordNet id' if len(known) == 1 else 'are WordNet ids'} of ImageNet's; "
            f"prompts have ImageNet's {'name' if len(known) == 1 else 'names'} ({known[0]}: {named[known[0]]!r})"
        )
    if meaningless := [name for name in classnames if name.isdecimal() or (WNID.fullmatch(name) and name not in named)]:
        yield (
            f"{len(meaningless)} of {total} {'is no word' if len(meaningless) == 1 else 'are no words'} "
            f"({listed(map(repr, meaningless), 3)}), so that the zero-shot head knows nothing of these classes; "
            "give their names in a file of class names"
        )


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


def imagenet_classnames() -> tuple[str, ...]:
    """The names of the 1000 classes of ImageNet (open_clip)."""
    return _open_clip_texts("IMAGENET_CLASSNAMES")


@cache
def imagenet_lemmas() -> tuple[str, ...]:
    """WordNet's words for the 1000 classes of ImageNet, such as "tench, Tinca tinca" (timm)."""
    lines = _library_file("timm", Path("data", "_info", "imagenet_synset_to_lemma.txt")).splitlines()
    lemma_of = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(lemma_of.get(wnid, wnid) for wnid in imagenet_wnids())


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


def _read(path: Path, content: str, known: Collection[str], note: Note) -> tuple[str, ...]:
    refuse_web_page(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise SuiteError(
                f"{path}: expected a text file of {content} with at most {_MAX_BYTES:,} bytes, found "
                f"{path.stat().st_size:,} bytes."
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        advice = did_you_mean(str(path), known) or " Give a text file with one per line."
        raise SuiteError(f"{path}: no such file of {content}, and no known {content} have that name.{advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: expected {content} in UTF-8, one per line: {error}.") from error
    try:
        found = parse_words(text, content)
    except SuiteError as error:
        raise SuiteError(f"{path}: {error}") from error
    for sentence in found.notes:
        note(f"{path}: {sentence}")
    return found.words


def _require_names(names: Sequence[str], where: str) -> None:
    """Raise SuiteError if a name is no name: a template, a piece of code, or several names on the only line."""
    for name in names:
        if not name.strip() or set("{}\n\r\0") & set(name) or re.match(r"lambda\b.*:", name):
            raise SuiteError(f"{where}: expected class names, found {shown(name)!r}.")
    if len(names) == 1 and names[0].count(",") > 1:
        raise SuiteError(
            f"{where}: expected class names, one per line, found a single line with commas: {shown(names[0])!r}."
        )


def _template(text: str, location: str) -> str:
    try:
        template = unquoted(text.strip()) if text.lstrip().startswith("lambda") else text
    except SuiteError as error:
        raise SuiteError(f"{location}: {error}") from error
    template = _PLACE.sub("{}", template)
    if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "")):
        raise SuiteError(f"{location}: expected one {{}} for the class name in each template, found {text!r}.")
    return template


@cache
def _names_of_wnids() -> Mapping[str, str]:
    return dict(zip(imagenet_wnids(), imagenet_classnames(), strict=True))


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
            return tuple(string_of(element) for element in node.value.elts)
    raise SuiteError(
        f"open_clip's zero_shot_metadata.py does not define {variable}. "
        "Install a version of open_clip_torch that mergekit-wise supports."
    )


def _library_file(library: str, path: Path) -> str:
    spec = find_spec(library)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (Path(folder) / path).is_file():
            return (Path(folder) / path).read_text(encoding="utf-8")
    raise SuiteError(f"{library}'s file {path} was not found. Run: pip install --force-reinstall open_clip_torch timm")
