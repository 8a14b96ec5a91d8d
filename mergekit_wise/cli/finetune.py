"""The command ``wise finetune``."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise import launcher
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.api.finetune import FinetuneReport
    from mergekit_wise.options import FinetuneOptions


def finetune(options: "FinetuneOptions", json: bool) -> None:
    """Fine-tune a zero-shot checkpoint: the first step of WiSE-FT. Interrupted runs resume with the same command."""
    from mergekit_wise.api.finetune import finetune
    from mergekit_wise.cli.progress import perform

    output = Path(options.output)
    log = options.log or output.with_name(f"{output.name.removesuffix('.safetensors')}.log.jsonl")
    report = perform(finetune, replace(options, log=log))
    if launcher.rank() == 0:  # of several processes that torchrun started, one prints
        _print(report, options, json)


def _print(report: "FinetuneReport", options: "FinetuneOptions", json: bool) -> None:
    from mergekit_wise.cli.console import out, show_json

    if json:
        show_json(report.to_dict())
        return
    last = report.epochs[-1] if report.epochs else None
    learned = f", training accuracy {100 * last.accuracy:.1f} %" if last else ""
    of = f"of {plural(report.classes, 'class')}" if report.classes else "with captions"
    images = f"{plural(report.images, 'image')} {of}"
    out.print(f"{report.output}: {plural(report.steps, 'step')} on {images}{learned}")
    out.print(f"Try next:\n  {_next(options, report)}", soft_wrap=True)


HELD_OUT = ("val", "valid", "validation", "test")
"""Names of a folder beside a training folder ``train`` that holds other images of the same classes."""


def _next(options: "FinetuneOptions", report: "FinetuneReport") -> str:
    """A command that runs as it is printed: what it reads and needs is there."""
    data = _reading(options)
    if options.new_head and options.linear:
        name = Path(report.output)
        end_to_end = name.with_name(f"{name.stem}-finetuned{name.suffix}")
        command = ["wise", "finetune", str(report.output), "--train", str(options.train), "-o", str(end_to_end)]
        return shlex.join([*command, *data, *_names(options)])
    suite = _evaluation_set(options) if report.classes else options.validate
    if suite is not None and (suite == str(options.train) or _same_folders(suite, options.train)):
        data += _names(options)
    own_head = options.new_head or options.head is not None
    has_pair = report.probe is not None or not own_head
    start = report.probe if own_head and report.probe is not None else options.checkpoint
    if has_pair and suite is None and not report.without_head:
        name = Path(report.output)
        merged = name.with_name(f"{name.stem}-merged{name.suffix}")
        return shlex.join(["wise", "merge", str(start), str(report.output), "-o", str(merged)])
    if has_pair and suite is not None:
        if report.without_head:  # the zero-shot model's own head is not one of the fine-tuned text encoder
            data += ["--head", "zero-shot"]
        pair = [str(start), str(report.output)]
        return shlex.join(["wise", "sweep", *pair, "--suite", str(suite), *data])
    if suite is None:
        return shlex.join(["wise", "inspect", str(report.output)])
    return shlex.join(["wise", "eval", str(report.output), "--suite", suite, *data])


def _reading(options: "FinetuneOptions") -> list[str]:
    """How images were read, as options that every command has that reads images."""
    names = ("data", "max_bad", "max_pixels")
    given = [(name, getattr(options, name)) for name in names]
    return [word for name, value in given if value for word in (f"--{name.replace('_', '-')}", str(value))]


def _names(options: "FinetuneOptions") -> list[str]:
    """The class names of the training data, which the head has now."""
    return ["--classnames", str(options.classnames)] if isinstance(options.classnames, str | Path) else []


def _same_folders(one: "str | Path", other: "str | Path") -> bool:
    """Whether two folders have class folders of the same names, so that one list of class names is right for both."""
    found, others = (
        {child.name for child in Path(data).iterdir() if child.is_dir()} if Path(data).is_dir() else set()
        for data in (one, other)
    )
    return bool(found) and found == others


def _evaluation_set(options: "FinetuneOptions") -> str | None:
    """What the fine-tuned model can be measured on, as far as it is known: not the training images."""
    if options.validate is not None:
        return options.validate
    from mergekit_wise.datasets.custom import read_toml
    from mergekit_wise.datasets.own_folders import labelled_parts
    from mergekit_wise.datasets.splits import role_of
    from mergekit_wise.datasets.suite_file import is_suite, read_suite

    train = Path(options.train)
    if str(options.train) == "digits":
        return "digits"
    if train.suffix == ".toml" and train.is_file():
        evaluates = is_suite(read_toml(train)) and bool(read_suite(train).members)
        return str(options.train) if evaluates else None
    if train.name == "train" and train.is_dir():
        return next((str(train.with_name(name)) for name in HELD_OUT if train.with_name(name).is_dir()), None)
    has_test_part = any(role_of(name) != "train" for name in labelled_parts(train))
    return str(options.train) if has_test_part else None
