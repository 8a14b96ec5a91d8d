"""The commands that show results: ``wise report`` and ``wise compare``."""

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Annotated

from mergekit_wise.errors import UsageError
from mergekit_wise.option_types import (
    ABSENT,
    EMPTY,
    FilePath,
    Files,
    Numbers,
    Option,
    OptionalNames,
    OptionalPath,
    OptionError,
    Options,
    Texts,
    options_class,
)
from mergekit_wise.options.common import DATA, MEASURE, MODEL, OUTPUT

MAX_LABEL = 80
"""Characters of a text of ``--label``."""


@options_class(frozen=True)
class ReportOptions(Options):
    """The options of ``wise report``."""

    results: Annotated[
        Files, Option("Results files (JSON Lines); several are compared.", is_argument=True, path="input")
    ]
    _: KW_ONLY
    output: Annotated[
        FilePath,
        Option(
            "The report: one HTML file that needs nothing else.",
            metavar="FILE",
            group=OUTPUT,
            short="-o",
            path="output",
        ),
    ] = "report.html"
    suite: Annotated[
        OptionalNames,
        Option(
            "Include only these suites, by the names in the records, separated by commas. May be repeated.",
            metavar="NAMES",
            group=DATA,
        ),
    ] = ABSENT
    label: Annotated[
        Texts,
        Option(
            "Name to show for zeroshot, finetuned, a checkpoint, data set or suite: zeroshot=CLIP. May be repeated.",
            metavar="NAME=TEXT",
            group=DATA,
        ),
    ] = EMPTY
    png: Annotated[
        OptionalPath,
        Option("Write each plot as PNG into this folder.", metavar="DIR", group=OUTPUT, path="folder"),
    ] = ABSENT
    svg: Annotated[
        OptionalPath,
        Option("Write each plot as SVG into this folder.", metavar="DIR", group=OUTPUT, path="folder"),
    ] = ABSENT
    pdf: Annotated[
        OptionalPath,
        Option("Write each plot as PDF into this folder.", metavar="DIR", group=OUTPUT, path="folder"),
    ] = ABSENT
    csv: Annotated[OptionalPath, Option("Write all numbers as CSV.", metavar="FILE", group=OUTPUT, path="output")] = (
        ABSENT
    )
    markdown: Annotated[
        OptionalPath, Option("Write the tables in Markdown.", metavar="FILE", group=OUTPUT, path="output")
    ] = ABSENT
    latex: Annotated[
        OptionalPath, Option("Write the tables in LaTeX.", metavar="FILE", group=OUTPUT, path="output")
    ] = ABSENT
    figure: Annotated[
        OptionalPath,
        Option(
            "Write one figure for papers, a panel per shift: .pdf, .svg or .png.",
            metavar="FILE",
            group=OUTPUT,
            path="output",
        ),
    ] = ABSENT
    width: Annotated[
        str,
        Option(
            "Width of --figure: one column (3.25 inches) or the whole text (6.75 inches).",
            group=OUTPUT,
            choices=("column", "text"),
        ),
    ] = "column"
    table: Annotated[
        OptionalPath,
        Option(
            "Write a compact LaTeX table for papers: both models, alpha 0.5 and the recommended mixture.",
            metavar="FILE",
            group=OUTPUT,
            path="output",
        ),
    ] = ABSENT
    baseline: Annotated[
        OptionalPath,
        Option(
            "CSV of other models' accuracies (name, reference, a column per shift), for effective robustness.",
            metavar="FILE",
            group=DATA,
            path="input",
        ),
    ] = ABSENT
    axis: Annotated[
        str, Option("Axis scale for the effective-robustness fit.", group=DATA, choices=("logit", "probit"))
    ] = "logit"

    def __post_init__(self) -> None:
        """Raises UsageError for a label that is no name with a text, and for two that cannot both be meant."""
        Options.__post_init__(self)
        texts: dict[str, str] = {}
        for label in self.label:
            name, _, text = (part.strip() for part in label.partition("="))
            if not name or not text:
                raise OptionError("label", label, "expected NAME=TEXT, such as zeroshot=CLIP.")
            if not text.isprintable() or len(text) > MAX_LABEL:
                raise OptionError("label", label, f"expected a text of at most {MAX_LABEL} printable characters.")
            if name in texts:
                raise UsageError(f"--label: {name} has two labels, {texts[name]!r} and {text!r}. Leave one out.")
            if text in texts.values():
                raise UsageError(f"--label: two names have the label {text!r}. Choose different ones.")
            texts[name] = text

    @property
    def labels(self) -> Mapping[str, str]:
        """The texts to show, by the names that they are shown for."""
        return {name.strip(): text.strip() for name, _, text in (label.partition("=") for label in self.label)}


@options_class(frozen=True)
class CompareOptions(Options):
    """The options of ``wise compare``."""

    first: Annotated[
        FilePath, Option("Results file of an evaluation or a sweep.", metavar="A.jsonl", is_argument=True, path="input")
    ]
    second: Annotated[
        OptionalPath,
        Option(
            "Another one. Without it, the mixtures of one sweep are compared.",
            metavar="B.jsonl",
            is_argument=True,
            path="input",
        ),
    ] = ABSENT
    _: KW_ONLY
    alphas: Annotated[
        Numbers | None,
        Option(
            "Mixtures of a sweep to compare, as a list or START:STOP:STEP.",
            metavar="LIST",
            group=MEASURE,
            default="of two files the recommended one, of one sweep all",
        ),
    ] = None
    against: Annotated[
        float | None,
        Option(
            "Mixture of one sweep to compare the others with.",
            metavar="ALPHA",
            group=MEASURE,
            default="0.5",
            minimum=0,
            maximum=1,
        ),
    ] = None
    model: Annotated[
        Texts,
        Option(
            "Model of a file that holds several. Given twice: the first and the second to compare.",
            metavar="NAME",
            group=MODEL,
        ),
    ] = EMPTY
    suite: Annotated[OptionalNames, Option("Suite of a file that holds several.", metavar="NAME", group=DATA)] = ABSENT
