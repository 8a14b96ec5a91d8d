"""Options are declared once; conversion, signatures, help and errors follow from the declaration."""

import inspect
import pydoc
import subprocess
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

import pytest

from mergekit_wise.cli.parameters import help_of
from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    Option,
    OptionalNames,
    OptionalPath,
    OptionError,
    Options,
    Pair,
    Source,
    Texts,
    declared_options,
    in_python,
    run,
    takes,
)
from mergekit_wise.options import COMMANDS, GROUPS, options_of
from mergekit_wise.wording import parse_size

EVERY = [(command, option) for command in COMMANDS for option in options_of(command).values()]


@dataclass(frozen=True, slots=True)
class Made(Options):
    """Options of a command that does not exist."""

    source: Annotated[Source, Option("What to read.", is_argument=True)]
    _: KW_ONLY
    count: Annotated[int, Option("How many.", minimum=1, maximum=9)] = 3
    share: Annotated[float | None, Option("Which share.", minimum=0)] = None
    quiet: Annotated[bool, Option("Print less.")] = False
    kind: Annotated[str, Option("Which kind.", choices=("one", "two"))] = "one"
    names: Annotated[OptionalNames, Option("Some names.")] = ABSENT
    patterns: Annotated[Texts, Option("Some patterns, see --max-count.")] = EMPTY
    folder: Annotated[OptionalPath, Option("A folder.")] = ABSENT
    both: Annotated[Pair | None, Option("Two files.")] = None


@takes(Made)
def made(options: Made) -> Made:
    """Return the options.

    Raises UsageError if there are four.
    """
    if options.count == 4:
        raise UsageError("--count 4: too many with --max-count. Try 'wise merge --alpha 1' first.")
    return options


@pytest.mark.parametrize(
    ("name", "given", "held"),
    [
        ("count", "7", 7),
        ("count", 7.0, 7),
        ("share", "1e-3", 1e-3),
        ("share", 2, 2.0),
        ("names", ["a", "b"], "a,b"),
        ("names", "a,b", "a,b"),
        ("patterns", "a", ("a",)),
        ("patterns", ["a", "b"], ("a", "b")),
        ("folder", "x", Path("x")),
        ("folder", Path("x"), Path("x")),
        ("both", ["a", "b"], ("a", "b")),
        ("source", "hf-hub:a/b", "hf-hub:a/b"),
        ("source", Path("x"), Path("x")),
        ("share", None, None),
    ],
)
def test_a_value_is_held_in_one_form_however_it_is_given(name, given, held):
    """Texts of a command line, TOML values and Python objects are converted to the same value."""
    found = getattr(made(**{"source": "s", name: given}), name)
    assert found == held
    assert type(found) is type(held)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("count", "many"),
        ("count", 1.5),
        ("count", True),
        ("count", 0),
        ("count", 10),
        ("share", float("nan")),
        ("share", float("inf")),
        ("share", -1),
        ("quiet", "no"),
        ("quiet", 1),
        ("kind", "three"),
        ("names", [["a"]]),
        ("names", {"a": 1}),
        ("folder", ["x"]),
        ("both", "a"),
        ("both", ["a", "b", "c"]),
        ("source", True),
    ],
)
def test_a_value_of_another_form_is_refused_by_the_options_name(name, given):
    """A value of the wrong form is an OptionError that knows the option, whatever the source."""
    with pytest.raises(OptionError) as error:
        Made(**{"source": "s", name: given})
    assert error.value.name == name
    assert str(error.value).startswith(f"--{name} ")


def test_a_function_has_the_signature_and_the_help_of_its_options():
    """The signature has the types that callers may pass, and `help` has a line for every argument."""
    parameters = inspect.signature(made).parameters
    assert list(parameters) == list(declared_options(Made))
    assert parameters["folder"].annotation == str | __import__("os").PathLike[str] | None
    assert parameters["count"].kind is inspect.Parameter.KEYWORD_ONLY
    text = pydoc.plain(pydoc.render_doc(made))
    assert "kind: Which kind. One of one, two." in text
    assert "patterns: Some patterns, see `max_count`." in text


def test_errors_name_arguments_in_python_and_options_on_the_command_line():
    """Messages name Python arguments for Python callers, except inside a quoted command line."""
    with pytest.raises(UsageError) as error:
        made("s", count=4)
    assert str(error.value) == "`count` 4: too many with `max_count`. Try 'wise merge --alpha 1' first."
    with pytest.raises(UsageError, match="^--count 4: too many with --max-count"):
        run(made, Made("s", count=4))
    command = "Make a head: wise zeroshot X --classes FILE -o zs.safetensors"
    assert in_python(f"--head x: no. {command}") == f"`head` x: no. {command}"


@pytest.mark.parametrize(("text", "size"), [("300000", 300_000), ("256MB", 256 * 10**6), (" 1.5 GiB ", 3 * 2**29)])
def test_sizes_are_read_with_their_units(text, size):
    """Decimal and binary units, with or without a space."""
    assert parse_size(text, "--memory") == size


@pytest.mark.parametrize("text", ["0", "", "many", "5 XB", "-3MB", "10"])
def test_a_text_that_is_not_a_size_is_refused(text):
    """A text that is not a size is an error that names the option."""
    with pytest.raises(UsageError, match="^--memory"):
        parse_size(text, "--memory")


@pytest.mark.parametrize(("command", "option"), EVERY, ids=lambda value: getattr(value, "key", value))
def test_every_option_is_described(command, option):
    """Every option has help in whole sentences, a known group, an allowed default and a row in the help page."""
    assert option.option.help.endswith((".", "'."))
    assert option.option.help[0].isupper() or option.option.help.startswith("open_clip")
    assert option.option.group in GROUPS
    if option.default is not None and option.default != ():
        option.convert(option.default)
    rows = [row for rows in help_of(command, 80).values() for row in rows]
    assert sum(option.key in names or option.metavar == names.rstrip(".") for names, _ in rows) >= 1


def test_declaring_options_imports_nothing_heavy():
    """Checking a file and describing a function import neither NumPy nor torch nor Typer."""
    heavy = "{'numpy', 'torch', 'typer', 'rich', 'open_clip'}"
    code = f"import sys, mergekit_wise.config; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
