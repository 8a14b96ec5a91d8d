"""Class names and prompt templates from text files, one a line, or by the names of well-known ones.

Knows nothing of data sets, tokens or text towers.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from mergekit_wise.datasets.libraries import imagenet_classnames, imagenet_templates, simple_templates
from mergekit_wise.errors import SuiteError

PLAIN = ("a photo of a {}.",)
_LARGEST = 1 << 24

CLASSNAMES: Mapping[str, Callable[[], tuple[str, ...]]] = {"imagenet": imagenet_classnames}
TEMPLATES: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "imagenet": imagenet_templates,
    "simple": simple_templates,
    "plain": lambda: PLAIN,
}


def read_classnames(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Names of classes: a list as it is, ``imagenet`` for open_clip's, or a file with one a line.

    Raises SuiteError if there is no such file, or if it has no names.
    """
    if not isinstance(source, (str, Path)):
        return tuple(source)
    if str(source) in CLASSNAMES and not Path(source).exists():
        return CLASSNAMES[str(source)]()
    return _lines(Path(source), "class names", CLASSNAMES)


def read_templates(source: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Prompts with one ``{}`` each: a list, a name of `TEMPLATES`, or a file with one a line.

    In a file the place of the class name may also be written ``{c}``, as clip-benchmark does. Raises SuiteError if
    there is no such file, or if a prompt has no place for a class name, or more than one.
    """
    if not isinstance(source, (str, Path)):
        return tuple(_template(text, "a template") for text in source)
    if str(source) in TEMPLATES and not Path(source).exists():
        return TEMPLATES[str(source)]()
    return tuple(_template(text, str(source)) for text in _lines(Path(source), "templates", TEMPLATES))


def _lines(path: Path, what: str, known: Collection[str]) -> tuple[str, ...]:
    try:
        if path.stat().st_size > _LARGEST:
            raise SuiteError(f"{path}: {path.stat().st_size:,} bytes are too many for a list of {what}.")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = get_close_matches(str(path), known)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise SuiteError(f"{path}: no such file of {what}, nor are any known by that name.{meant}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: expected {what} in UTF-8, one a line: {error}.") from error
    lines = tuple(line.strip() for line in text.rstrip().splitlines())
    if not lines or "" in lines:
        found = f"an empty line {lines.index('') + 1}" if lines else "an empty file"
        raise SuiteError(f"{path}: expected {what}, one a line, found {found}.")
    return lines


def _template(text: str, where: str) -> str:
    plain = text.replace("{c}", "{}")
    if plain.count("{}") != 1 or set("{}") & set(plain.replace("{}", "")):
        raise SuiteError(f"{where}: expected one {{}} for the class name in each template, found {text!r}.")
    return plain
