"""What an option is: a field of a dataclass that declares its form, its allowed values and its meaning.

From such a class follow the parameters of a command, the keys of ``wise.toml`` and of recipes, the keyword arguments of
a Python function, and the reference. Values of all these sources are checked by the class itself, in one way. Knows no
option by name, no command line and no file.
"""

import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, dataclass, fields
from functools import cache, wraps
from math import isfinite
from pathlib import Path
from textwrap import wrap
from threading import Lock
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Generic,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
)

from mergekit_wise.datasets.given import DatasetInMemory, is_in_memory
from mergekit_wise.errors import UsageError, WiseError
from mergekit_wise.output_paths import require_apart
from mergekit_wise.wording import listed, shown

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
O = TypeVar("O")  # noqa: E741
R = TypeVar("R")

Source = str | Path
"""A checkpoint: a file, a folder, a name to fetch, or a `ModelInMemory`. A name stays a text, a path a path."""


class ModelInMemory(str):
    """A model in memory in the place of a checkpoint's name: the text is what messages and records call it.

    Attributes:
        weights: the module, or its state dict.
        metadata: what a merged state dict records of itself, as a file does; else empty.
    """

    weights: "torch.nn.Module | Mapping[str, torch.Tensor]"
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, weights: Any, role: str = "") -> "ModelInMemory":
        """Call it by its class, after its `role`, such as the name of an argument."""
        what = f"{'state dict' if isinstance(weights, Mapping) else type(weights).__name__} in memory"
        found = cls(f"{role} ({what})" if role else what)
        found.weights = weights
        metadata = getattr(weights, "metadata", None) if isinstance(weights, Mapping) else None
        found.metadata = metadata if isinstance(metadata, Mapping) else {}
        return found


class SoupSource(str):
    """The soup of several checkpoints in the place of one checkpoint's name: the text is what messages call it.

    Attributes:
        members: the checkpoints, fine-tuned from one start.
        how: "uniform" or "stock".
        selection: how the members were chosen from others, for provenance; empty if they were not.
    """

    members: tuple[Source, ...]
    how: str
    selection: Mapping[str, Any]

    @classmethod
    def of(cls, members: Sequence[Source], how: str = "uniform", selection: Mapping[str, Any] | None = None) -> Self:
        """Call it by how it is made and by the names of its members, in a text that could be a file's name."""
        names = listed((shown(re.split(r"[/\\\\]", str(member))[-1], 40) for member in members), 3)
        text = f"{'' if how == 'uniform' else f'{how} '}soup of {len(members)}: {names}"
        found = cls(text.encode()[:LONGEST_VALUE].decode(errors="ignore"))
        found.members, found.how, found.selection = tuple(members), how, selection or {}
        return found


Numbers = str | Sequence[float]
"""Numbers as one text such as ``0:1:0.1``, or as a list."""

if TYPE_CHECKING:
    _Weights = Source | torch.nn.Module | Mapping[str, torch.Tensor]
    Pair = tuple[_Weights, _Weights]
else:
    Pair = tuple[Source, Source]

FilePath = str | os.PathLike[str]
"""A file or folder."""

Files = FilePath | Sequence[FilePath]
"""One file or several."""

Words = str | Path | Sequence[str]
"""A file of texts, the name of a well-known set of texts, or the texts themselves."""

LONGEST_VALUE = 200
"""Characters of a value that a message shows."""

ABSENT: Any = None
"""The default of an optional `Kind`: none was given."""

EMPTY: Any = ()
"""The default of a `Kind` that holds any number of values."""


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise TypeError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _text(value: Any) -> str:
    """A text as it is; a number, a path or a torch dtype as people write it."""
    if isinstance(value, bool | Mapping | list | tuple | set) or hasattr(value, "isoformat"):
        raise TypeError
    return str(value)


def _source(value: Any) -> str | Path:
    if isinstance(value, Path | ModelInMemory | SoupSource):
        return value
    return Path(os.fspath(value)) if isinstance(value, os.PathLike) else _text(value)


def _model(value: Any) -> str | Path:
    """What a checkpoint may be, and a module or a state dict as a `ModelInMemory`."""
    if not _is_weights(value) and callable(value):  # a class, or a function
        raise TypeError
    return ModelInMemory.of(value) if _is_weights(value) else _source(value)


def _is_weights(value: Any) -> bool:
    """Whether a value is a module or a state dict."""
    return callable(getattr(type(value), "state_dict", None)) or isinstance(value, Mapping)


def _models(value: Any) -> tuple[str | Path, ...]:
    """Several of what a checkpoint may be; a text may name several, with commas between."""
    given = [value] if _is_weights(value) else _each(value)
    each = [part for one in given for part in (one.split(",") if type(one) is str else [one])]
    return tuple(
        ModelInMemory.of(one, f"member {number}") if _is_weights(one) else _source(one)
        for number, one in enumerate(each, 1)
    )


def _evaluator(value: Any) -> Any:
    """The name of an evaluator, or a function as it is."""
    return value if callable(value) else _text(value)


def _called(source: Any, role: str) -> Any:
    """A `ModelInMemory` by its role, unless it has a name already; anything else as it is."""
    nameless = isinstance(source, ModelInMemory) and source == ModelInMemory.of(source.weights)
    return ModelInMemory.of(source.weights, role) if nameless else source


def _data(value: Any) -> str:
    """Names of data sets as one text; data sets in memory as a `DatasetInMemory`."""
    if isinstance(value, DatasetInMemory):
        return value
    return DatasetInMemory.of(value) if is_in_memory(value) else _joined(value)


def _one_data_set(value: Any) -> str:
    """A name, a path, or a data set in memory."""
    if isinstance(value, DatasetInMemory):
        return value
    return DatasetInMemory.of(value) if is_in_memory(value) else _name(value)


def _path(value: Any) -> Path:
    return Path(value) if isinstance(value, os.PathLike) else Path(_text(value))


def _each(value: Any) -> list[Any]:
    """The entries of a list, or the only one."""
    if isinstance(value, Mapping):
        raise TypeError
    if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable):
        return [value]
    return list(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _each(value)))


def _joined(value: Any) -> str:
    return ",".join(map(_name, _each(value)))


def _name(value: Any) -> str:
    """A name as it is; a path so that it is no name: ``./imagenet``."""
    text = _text(value)
    return f".{os.sep}{text}" if isinstance(value, os.PathLike) and os.sep not in text else text


def _words(value: Any) -> str | Path | tuple[str, ...]:
    return _source(value) if isinstance(value, str | os.PathLike) else _texts(value)


def _numbers(value: Any) -> str | tuple[float, ...]:
    return value if isinstance(value, str) else tuple(map(_real, _each(value)))


def _pair(value: Any) -> tuple[str | Path, str | Path]:
    first, second = map(_model, _each(value))
    return first, second


def files_of(value: Files) -> tuple[Path, ...]:
    """One file or several as paths."""
    return tuple(map(_path, _each(value)))


BUILT_IN: Mapping[Any, tuple[Callable[[Any], Any], str]] = {
    bool: (_flag, "true or false"),
    int: (_whole, "a whole number"),
    float: (_real, "a number"),
    str: (_text, "a number or a text"),
    Source: (_source, "a text"),
    Numbers: (_numbers, "a text such as 0:1:0.1, or a list of numbers"),
    Pair: (_pair, "a list of 2 values"),
    FilePath: (_path, "a path"),
    Files: (files_of, "a path or a list of paths"),
    Words: (_words, "a text or a list of texts"),
}
"""For each ordinary type of a field: the function that converts a value, and the expectation in messages."""

if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset

    DataInMemory = TorchDataset[Any] | Sequence[Any]

    Held = TypeVar("Held")
    Given = TypeVar("Given")

    class Kind(Generic[Held, Given]):
        """The type of a field with a default that is given as one type and holds another: a text as a path."""

        def __get__(self, instance: object, owner: type | None = None) -> Held: ...
        def __set__(self, instance: object, value: Given) -> None: ...

    # Required fields have no defaults, and so no `Kind`; what they hold is a `Source`.
    Weights = Source | torch.nn.Module | Mapping[str, torch.Tensor]
    OptionalWeights = Kind[Source | None, str | os.PathLike[str] | torch.nn.Module | Mapping[str, torch.Tensor] | None]
    # Held once the options are made, whichever option gave it.
    AlternativeWeights = Kind[Source, str | os.PathLike[str] | torch.nn.Module | Mapping[str, torch.Tensor] | None]
    Sources = Kind[tuple[Source, ...], Weights | Sequence[Weights | os.PathLike[str]]]
    OptionalPath = Kind[Path | None, str | os.PathLike[str] | None]
    Texts = Kind[tuple[str, ...], str | Sequence[str]]
    Paths = Kind[tuple[Path, ...], FilePath | Sequence[FilePath]]
    OptionalNames = Kind[str | None, str | Sequence[str] | None]
    Data = str | os.PathLike[str] | DataInMemory
    OptionalData = Kind[str | None, Data | None]
    OptionalSuite = Kind[str | None, str | Sequence[str] | DataInMemory | Mapping[str, DataInMemory] | None]
    Dtype = Kind[str | None, str | torch.dtype | None]
    OptionalEvaluator = Kind[Any, str | Callable[..., Any] | None]
else:

    @dataclass(frozen=True, slots=True)
    class Kind:
        """What type checkers see above, as it is at run time.

        Attributes:
            convert: makes what a field holds of what is given; raises TypeError or ValueError.
            expected: what a message says was expected.
            hint: what may be given, for signatures.
            several: whether it holds any number of values.
        """

        convert: Callable[[Any], Any]
        expected: str
        hint: Any
        several: bool = False

        def __call__(self) -> None:
            """Annotations accept callables only."""

    _MODEL = "a path, a name, a module (no class and no function) or a state dict"
    _WEIGHTS = "str | os.PathLike[str] | torch.nn.Module | Mapping[str, torch.Tensor]"
    Weights = Kind(_model, _MODEL, _WEIGHTS)
    OptionalWeights = Kind(_model, _MODEL, f"{_WEIGHTS} | None")
    AlternativeWeights = Kind(_model, _MODEL, f"{_WEIGHTS} | None")
    Sources = Kind(
        _models,
        "checkpoints: texts with commas between, or a list of texts, paths, modules and state dicts",
        f"{_WEIGHTS} | Sequence[{_WEIGHTS}]",
        several=True,
    )
    OptionalPath = Kind(_path, "a path", FilePath | None)
    Texts = Kind(_texts, "a text or a list of texts", str | Sequence[str], several=True)
    Paths = Kind(files_of, "a path or a list of paths", Files, several=True)
    OptionalNames = Kind(_joined, "a text or a list of texts", str | Sequence[str] | None, several=True)
    _DATA = "torch.utils.data.Dataset | Sequence[tuple[Image, int]]"
    Data = Kind(_one_data_set, "a name, a path or a data set in memory", f"str | os.PathLike[str] | {_DATA}")
    OptionalData = Kind(Data.convert, Data.expected, f"{Data.hint} | None")
    OptionalSuite = Kind(
        _data,
        "a name or several names, or data sets with a length and an index",
        f"str | Sequence[str] | {_DATA} | Mapping[str, {_DATA}] | None",
        several=True,
    )
    Dtype = Kind(_text, "the name of a dtype", str | None)
    OptionalEvaluator = Kind(_evaluator, "the name of an evaluator, or a function", "str | Callable[[Any], Any] | None")


@dataclass(frozen=True, slots=True)
class Option:
    """How an option is described and checked; its name, type and default are those of the field that it annotates.

    Attributes:
        help: one or two sentences; ``{}`` means nothing here.
        metavar: the placeholder for the value in the help; by default the choices, or the field's name.
        group: the heading in the help.
        choices: all values that a text may have.
        minimum, maximum: bounds of a number, both allowed.
        above, below: bounds of a number, neither allowed.
        default: a description of the default, if that is None.
        cli_default: the default on the command line, if it differs from the function's.
        cli_required: whether the command line must give it, although the function has a default.
        is_argument: whether it is given by position on the command line.
        replaces: the name of an argument in whose place it is given, so that the command line has one of the two.
        short: a short flag, ``-o``.
        envvar: an environment variable that is used if the command line gives no value.
        aliases: former names, still understood.
        path: whether it names what is read (``input``) or written (``output``, or a ``folder`` for it, which
            several options may share); a recipe's paths are relative to it.
        completes: the names with which a shell completes the value.
    """

    help: str
    _: KW_ONLY
    metavar: str = ""
    group: str = "Options"
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    default: str = ""
    cli_default: Any = None
    cli_required: bool = False
    is_argument: bool = False
    replaces: str = ""
    short: str = ""
    envvar: str = ""
    aliases: tuple[str, ...] = ()
    path: Literal["", "input", "output", "folder"] = ""
    completes: Literal["", "suites", "data sets"] = ""


class OptionError(UsageError):
    """An option has an invalid value. ``name`` is the field, ``reason`` says what was expected.

    The message calls the option by `flag`, if that is not the field's name with hyphens.
    """

    def __init__(self, name: str, value: object, reason: str, flag: str = "") -> None:
        super().__init__(f"{flag or '--' + name.replace('_', '-')} {as_written(value)}: {reason}")
        self.name, self.reason = name, reason


@dataclass(frozen=True, slots=True)
class Declared:
    """An option together with its field; `kind` is the type without None and without the annotation."""

    name: str
    kind: Any
    option: Option
    required: bool
    default: Any

    @property
    def key(self) -> str:
        """The name on the command line, without dashes, and in files."""
        return self.name.replace("_", "-")

    @property
    def is_required(self) -> bool:
        """Whether the command line must give it."""
        return self.required or self.option.cli_required

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.kind is bool

    @property
    def is_repeated(self) -> bool:
        """Whether it takes any number of values."""
        return self.kind == Files or getattr(self.kind, "several", False)

    @property
    def has_commas(self) -> bool:
        """Whether it holds names with commas between them."""
        return self.kind in (OptionalNames, OptionalSuite)

    @property
    def is_pair(self) -> bool:
        """Whether it takes two values."""
        return self.kind == Pair  # type: ignore[no-any-return]

    @property
    def metavar(self) -> str:
        """The placeholder for the value in the help."""
        if self.is_flag:
            return ""
        choices = f"[{'|'.join(self.option.choices)}]" if self.option.choices else ""
        return self.option.metavar or choices or self.name.upper()

    @property
    def flag(self) -> str:
        """The name in messages."""
        return self.name.upper() if self.option.is_argument else f"--{self.key}"

    def paths(self, value: Any) -> tuple[Path, ...]:
        """The paths that a value of the field may stand for."""
        if value is None or isinstance(value, DatasetInMemory):
            return ()
        if self.kind == Words and isinstance(value, tuple):  # texts themselves
            return ()
        if self.has_commas:
            value = value.split(",")
        return tuple(Path(each) for each in _each(value) if "\0" not in str(each))

    def convert(self, value: Any) -> Any:
        """The value as the field holds it. Raises OptionError unless it has the right form and is allowed."""
        if value is None:
            return None
        kind = self.kind
        convert, expected = BUILT_IN.get(kind) or (kind.convert, kind.expected)
        try:
            converted: Any = convert(value)
        except (TypeError, ValueError, OverflowError):
            raise OptionError(self.name, value, f"expected {expected}.") from None
        if isinstance(converted, ModelInMemory) and converted is not value:
            converted = ModelInMemory.of(value, self.name)  # two modules of one class have two names
        if self.is_pair:
            converted = tuple(_called(each, f"{self.name}[{place}]") for place, each in enumerate(converted))
        if isinstance(converted, DatasetInMemory) and converted is not value:
            converted = DatasetInMemory.of(value, self.name)
        option = self.option
        bounds = [
            (f"at least {option.minimum:,}", converted >= option.minimum) if option.minimum is not None else None,
            (f"above {option.above:,}", converted > option.above) if option.above is not None else None,
            (f"at most {option.maximum:,}", converted <= option.maximum) if option.maximum is not None else None,
            (f"below {option.below:,}", converted < option.below) if option.below is not None else None,
        ]
        known = [bound for bound in bounds if bound is not None]
        if not all(kept for _, kept in known):
            raise OptionError(self.name, value, f"expected {' and '.join(text for text, _ in known)}.")
        if known and not isfinite(converted):
            raise OptionError(self.name, value, "expected a finite number.")
        for one in converted if isinstance(converted, tuple) else (converted,):
            if self.option.choices and one not in self.option.choices:
                raise OptionError(self.name, one, f"expected one of {', '.join(self.option.choices)}.", self.flag)
        return converted


@dataclass_transform(frozen_default=True)
def options_class(*, frozen: bool) -> Callable[[type[O]], type[O]]:
    """Declare a class of options: a dataclass, which `as_dataclass` makes of it when it is first used.

    A command uses one or two of the classes, and making all of them would take a tenth of the time of a small merge.
    Type checkers see a frozen dataclass from the start.
    """
    assert frozen  # what type checkers read
    return lambda options: options


class Options:
    """The base of all classes of options: every value is converted and checked when one is made."""

    __slots__ = ()

    def __new__(cls, *args: Any, **values: Any) -> Self:
        """The dataclass has the `__init__` that takes the values."""
        as_dataclass(cls)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Raises OptionError for a value that an option cannot have, and what `require_apart` raises."""
        options: Any = type(self)
        named: dict[str, list[tuple[str, Path]]] = {"input": [], "output": [], "folder": []}
        for name, declared in declared_options(options).items():
            value = declared.convert(getattr(self, name))
            object.__setattr__(self, name, value)
            if declared.option.path:
                named[declared.option.path] += [(declared.flag, path) for path in declared.paths(value)]
        require_apart(dict(named["output"]), dict(named["folder"]), named["input"])


def as_dataclass(options: type[O]) -> type[O]:
    """A class of options, which becomes a dataclass with its first use."""
    with _MAKING:
        for each in reversed(options.__mro__):
            if issubclass(each, Options) and each is not Options and "__dataclass_fields__" not in vars(each):
                dataclass(frozen=True)(each)
    return options


_MAKING = Lock()


@cache
def declared_options(options: Any) -> Mapping[str, Declared]:
    """The options of a class by the names of their fields; fields without an `Option` are not among them."""
    found = {}
    as_dataclass(options)
    for field in fields(options):
        if get_origin(field.type) is not Annotated:
            continue
        kind, option = get_args(field.type)
        parts = [part for part in get_args(kind) if part is not NoneType] if isinstance(kind, UnionType) else [kind]
        without_none = parts[0]
        for part in parts[1:]:
            without_none = without_none | part
        default = None if field.default is MISSING else field.default
        found[field.name] = Declared(field.name, without_none, option, field.default is MISSING, default)
    return found


def as_written(value: object) -> str:
    """A value for people as a file would hold it, without control characters."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_written, value))}]"
    return shown(str(value), LONGEST_VALUE)


COMMAND_LINE = re.compile(r"((?m:^ {4}(?:wise|--).*$)|\bwise (?:data )?[a-z]+ .*?(?:'|\n|;|\. |$))")
"""A command that a message quotes, or a line of it to copy."""

OPTION_NAME = re.compile(r"(?<![\w-])--([a-z][a-z-]*[a-z])\b")


def takes(options: Callable[P, O]) -> Callable[[Callable[[O], R]], Callable[P, R]]:
    """Give a function of a class of options the arguments of that class, as its real signature.

    ``takes(MergeOptions)(function)`` is called as ``function(zeroshot, finetuned, output, alpha=0.4)``. Errors name
    arguments rather than options of the command line; `run` is for callers that have the options. The docstring gets
    a line for each argument.
    """

    def decorated(function: Callable[[O], R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(options(*args, **kwargs))
            except WiseError as error:
                error.args = tuple(in_python(arg) if isinstance(arg, str) else arg for arg in error.args)
                raise

        assert isinstance(options, type)
        called.__signature__ = _signature(options, function)  # type: ignore[attr-defined]
        called.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n{_arguments(options)}"
        return called

    return decorated


def run(function: Callable[..., R], options: Options) -> R:
    """Call a function that `takes` a class of options with an object of that class; errors name options."""
    result: R = function.__wrapped__(options)  # type: ignore[attr-defined]
    return result


def in_python(message: str) -> str:
    """A message with names of arguments in place of options: ``--batch-size`` becomes `batch_size`.

    Options in a command line that the message quotes stay as they are, and a line of options becomes arguments.
    """
    parts = COMMAND_LINE.split(message)
    parts[::2] = [OPTION_NAME.sub(lambda found: f"`{found[1].replace('-', '_')}`", part) for part in parts[::2]]
    parts[1::2] = [_as_arguments(part) if part.startswith("    --") else part for part in parts[1::2]]
    return "".join(parts)


def _as_arguments(options: str) -> str:
    """``--keep zs:a --keep ft:b`` as ``keep=['zs:a', 'ft:b']``; each of the options has a value and may be repeated."""
    values: dict[str, list[str]] = {}
    words = iter(shlex.split(options))
    for option, value in zip(words, words, strict=True):
        values.setdefault(option.removeprefix("--").replace("-", "_"), []).append(value)
    return "    " + ", ".join(f"{name}={found!r}" for name, found in values.items())


def _signature(options: type, function: Callable[..., object]) -> inspect.Signature:
    signature = inspect.signature(as_dataclass(options))
    parameters = [
        parameter.replace(annotation=_hint(parameter.annotation)) for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=inspect.signature(function).return_annotation)


def _hint(annotation: Any) -> Any:
    """What a caller may give, without what only this module reads."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return getattr(kind, "hint", kind)


def _arguments(options: type) -> str:
    """The section of a docstring that describes the arguments."""
    lines = ["Args:"]
    for name, declared in declared_options(options).items():
        text = in_python(declared.option.help)
        if declared.option.choices:
            text += f" One of {', '.join(declared.option.choices)}."
        if declared.option.default:
            text += f" Default: {in_python(declared.option.default)}."
        lines += wrap(f"{name}: {text}", 110, initial_indent="    ", subsequent_indent="        ")
    return "\n".join(lines)
