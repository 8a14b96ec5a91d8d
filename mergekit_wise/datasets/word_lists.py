"""Lists of class names or templates as people keep them: one per line, JSON, YAML, or a list copied from Python code.

What is written around the words (quotes, commas, numbers, lambdas) is removed, and a note says so; what cannot be
understood is refused, so that it never becomes part of a prompt. Nothing is executed. Knows no file and no library.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural, shown

WNID = re.compile(r"n\d{8}")
"""A WordNet id."""

_NUMBERED = re.compile(r"(\d{1,9})(?:\s*[:,;=]\s*|\s+)(\S.*)")
_ITEM = re.compile(r"-\s+(\S.*)")
_IDENTIFIED = re.compile(r"(n\d{8})[\s,:]+(\S.*)")
_HEADING = re.compile(r"[A-Za-z_]\w*\s*:")
_QUOTES = ("'", '"')
_BEYOND = (ValueError, SyntaxError, RecursionError, MemoryError)
"""What parsing a text that is no Python, or is too deeply nested, raises."""


@dataclass(frozen=True, slots=True)
class WordList:
    """Words in the order of their classes, and sentences on what was removed around them."""

    words: tuple[str, ...]
    notes: tuple[str, ...] = ()


def parse_words(text: str, content: str) -> WordList:
    """The words in a text; `content` is what they should be, for messages ("class names").

    Understands a JSON list or object (``{"0": "cat"}``, ``{"cat": 0}``, ``{"n01440764": ["tench", ...]}``, ImageNet's
    class index, a config.json with ``id2label`` or ``label_names``), lists of Python code, lines of YAML (``- cat``,
    ``0: cat``), and one word per line. Raises SuiteError with what was found; it does not name the file.
    """
    if text.strip() == "{}":  # the template that is the class name alone, rather than an object without entries
        return WordList(("{}",))
    if text.lstrip().startswith(("{", "[")) and (value := _json(text)) is not None:
        return WordList(_of_value(value, content), ("read as JSON",))
    if (found := _code(text)) is not None:
        return WordList(_of_value(found, content), ("read as a list of Python code",))
    lines = tuple(line.strip() for line in text.rstrip().splitlines())
    if not lines or "" in lines:
        where = f"that line {lines.index('') + 1} is empty" if lines else "an empty file"
        raise SuiteError(f"expected {content}, one per line, found {where}.")
    return _of_lines(lines, content)


def _json(text: str) -> object | None:
    try:
        value: object = parse_json(text.encode())
    except _BEYOND:
        return None
    return value


# Lists in Python code


def _code(text: str) -> object | None:
    """The only list, tuple or dictionary of strings in a piece of Python code; None if it is none."""
    if not any(mark in text for mark in "[({"):
        return None
    try:
        body = ast.parse(text.strip()).body
    except _BEYOND:
        return None
    if len(body) != 1 or not isinstance(body[0], (ast.Assign, ast.AnnAssign, ast.Expr)):
        return None
    try:
        return _literal(body[0].value)
    except SuiteError:
        return None


def _literal(node: ast.expr | None) -> object:
    if isinstance(node, (ast.List, ast.Tuple)) and node.elts:
        return [_element(element) for element in node.elts]
    if isinstance(node, ast.Dict) and node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return {str(_element(key)): _element(value) for key, value in pairs if key is not None}
    raise SuiteError("no list")


def _element(node: ast.expr) -> object:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_element(element) for element in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    return string_of(node)


def string_of(node: ast.expr) -> str:
    """The text of a string in Python code; a lambda or an f-string gives its format with ``{}`` for its variable.

    Raises SuiteError for anything else.
    """
    if isinstance(node, ast.Lambda):
        return string_of(node.body)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _place(part) if isinstance(part, ast.FormattedValue) else string_of(part) for part in node.values
        )
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise SuiteError(f"found code that is no string: {shown(ast.unparse(node))!r}.")


def _place(part: ast.FormattedValue) -> str:
    if isinstance(part.value, ast.Name) and part.conversion == -1 and part.format_spec is None:
        return "{}"
    raise SuiteError(f"found code inside a template: {shown(ast.unparse(part.value))!r}.")


# Values of JSON and of code


def _of_value(value: object, content: str) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        for key in ("id2label", "label_names"):
            if isinstance(value.get(key), (dict, list)):
                return _of_value(value[key], content)
        return _of_mapping({str(key): entry for key, entry in value.items()}, content)
    if isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        return tuple(entry.strip() for entry in value)
    raise SuiteError(f"expected a list of {content}, found {shown(json.dumps(value))}.")


def _of_mapping(value: Mapping[str, object], content: str) -> tuple[str, ...]:
    """The words of a mapping from class numbers or WordNet ids to words, or from words to class numbers."""
    numbers = {entry: key for key, entry in value.items() if isinstance(entry, int) and not isinstance(entry, bool)}
    if value and len(numbers) == len(value):
        return _in_order(numbers, content)
    if value and all(key.isdecimal() and len(key) < 10 for key in value):
        return _in_order({int(key): _word(entry, content) for key, entry in value.items()}, content)
    if value and all(WNID.fullmatch(key) for key in value):
        return tuple(_word(value[key], content) for key in sorted(value))
    raise SuiteError(
        f"expected a list of {content}, or an object that gives them for the class numbers 0, 1, 2 ..., found one with "
        f"the keys {listed((repr(shown(key)) for key in value), 3)}."
    )


def _in_order(words: Mapping[int, str], content: str) -> tuple[str, ...]:
    first = min(words)
    if first not in (0, 1) or sorted(words) != list(range(first, first + len(words))):
        missing = next(number for number in range(first if first in (0, 1) else 0, max(words)) if number not in words)
        raise SuiteError(f"expected {content} for all class numbers from 0, found none for {missing}.")
    return tuple(words[number] for number in sorted(words))


def _word(entry: object, content: str) -> str:
    """The word of one class: a text, the first of synonyms, or the name behind a WordNet id."""
    if isinstance(entry, str):
        return entry.strip()
    if isinstance(entry, list) and entry and all(isinstance(part, str) for part in entry):
        return str(entry[1] if len(entry) > 1 and WNID.fullmatch(entry[0]) else entry[0]).strip()
    raise SuiteError(f"expected {content}, found {shown(json.dumps(entry))}.")


# Lines


def _of_lines(lines: tuple[str, ...], content: str) -> WordList:
    notes: list[str] = []
    if len(lines) > 1 and _HEADING.fullmatch(lines[0]) and _is_yaml(lines[1:]):
        notes.append(f"the heading {lines[0]!r} was left out")
        lines = lines[1:]
    if heading := next((line for line in lines if _HEADING.fullmatch(line)), None):
        raise SuiteError(
            f"expected {content}, one per line, found the key {heading!r}. Keep only the list of {content}."
        )
    if len(lines) > 2 and not _NUMBERED.fullmatch(lines[0]) and _numbered(lines[1:]) is not None:
        raise SuiteError(
            f"expected {content}, one per line, found numbers before all but the first, {shown(lines[0])!r}."
        )
    lines = _without_commas(lines, content, notes)
    if all(map(_ITEM.fullmatch, lines)):
        lines = tuple(found[1] for line in lines if (found := _ITEM.fullmatch(line)))
        notes.append("the dashes before the words were removed")
    elif (numbered := _numbered(lines)) is not None:
        lines = numbered
        notes.append("the class numbers before the words were removed, and give their order")
    elif all(map(_IDENTIFIED.fullmatch, lines)):
        lines = tuple(found[2] for line in lines if (found := _IDENTIFIED.fullmatch(line)))
        notes.append("the WordNet ids before the words were removed; the order is that of the lines")
    bare = tuple(map(unquoted, lines))
    if bare != lines:
        changed = sum(a != b for a, b in zip(bare, lines, strict=True))
        notes.append(f"quotes or code around {plural(changed, 'line')} were removed: {shown(lines[0])} is {bare[0]!r}")
    return WordList(bare, tuple(notes))


def _is_yaml(lines: Sequence[str]) -> bool:
    return all(map(_ITEM.fullmatch, lines)) or _numbered(lines) is not None


def _numbered(lines: Sequence[str]) -> tuple[str, ...] | None:
    """The words behind class numbers, in the order of these; None unless the lines have all numbers from 0 or 1."""
    found = [_NUMBERED.fullmatch(line) for line in lines]
    words = {int(match[1]): match[2] for match in found if match}
    if len(lines) < 2 or len(words) != len(lines):
        return None
    first = min(words)
    complete = first in (0, 1) and sorted(words) == list(range(first, first + len(words)))
    return tuple(words[number] for number in sorted(words)) if complete else None


def _without_commas(lines: tuple[str, ...], content: str, notes: list[str]) -> tuple[str, ...]:
    """Lines without a comma at the end, which all but the last one must have if any has."""
    ending = [line.endswith(",") for line in lines]
    if not any(ending):
        return lines
    if not all(ending[:-1]):
        raise SuiteError(
            f"expected {content}, one per line, found that {ending.count(True)} of {len(lines)} lines end with a "
            "comma. Remove the commas, or write a JSON list."
        )
    notes.append("the commas at the ends of the lines were removed")
    return tuple(line.removesuffix(",").rstrip() for line in lines)


def unquoted(line: str) -> str:
    """A line of Python code or a quoted word without what is not part of the word; any other line as it is.

    Raises SuiteError for code that is no string.
    """
    if not (line[:1] in _QUOTES or re.match(r"(?:[fFrRbBuU]{1,2}['\"]|lambda\b)", line)):
        return line
    try:
        return string_of(ast.parse(line, mode="eval").body)
    except _BEYOND:
        if line[0] in _QUOTES and line[-1] == line[0] and len(line) > 2:
            return line[1:-1]
        if line[0] in _QUOTES and line[0] not in line[1:]:
            return line  # an apostrophe or the sign for inches, not a quotation
        raise SuiteError(f"cannot read the line {shown(line)!r}.") from None
