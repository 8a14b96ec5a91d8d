"""What a checkpoint's provenance says of its making, in the words of a model card. Knows no results and no file."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.merging import Rules, read_origin, read_rules
from mergekit_wise.merging.provenance import read_calibrations
from mergekit_wise.models.merge_command import recorded_command, verify_command
from mergekit_wise.report.exports import escaped_markdown
from mergekit_wise.report.table import Table
from mergekit_wise.results.measurement import as_number, as_text
from mergekit_wise.wording import plural

SOUP = "soup"
"""The method in the provenance of a mean of several fine-tuned models."""

WIDEST = 200
"""Characters of a name or a pattern that a card shows."""


@dataclass(frozen=True, slots=True)
class Making:
    """How a checkpoint was made, as far as it records that.

    Attributes:
        method: ``wise-ft`` or ``soup``; empty where no merge is recorded.
        alpha: of all tensors that no rule excepts; None where no merge is recorded.
        summary: sentences in Markdown.
        commands: the command lines that make the file again.
        verify: the line of ``wise verify``; empty where no merge is recorded.
        sources: a row per source with its format, its size and its digest; None where no merge is recorded.
        repositories: those of the sources that are on the hub.
        version: of the tool that merged.
    """

    method: str
    alpha: float | None
    summary: tuple[str, ...]
    commands: tuple[str, ...]
    verify: str
    sources: Table | None
    repositories: tuple[str, ...]
    version: str

    @property
    def is_merged(self) -> bool:
        """Whether a merge is recorded."""
        return bool(self.method)


def making_of(checkpoint: Checkpoint, name: str) -> Making:
    """How a checkpoint was made whose file or folder is called `name`.

    Raises CheckpointError if its provenance cannot be understood.
    """
    origin = read_origin(checkpoint)
    calibrations = tuple(_calibrated(entry) for entry in read_calibrations(checkpoint))
    if origin is None:
        text = "This checkpoint records no merge: it was not written by `wise merge`, or as a file without metadata."
        return Making("", None, (text, *calibrations), (), "", None, (), "")
    sources = [*_sources(origin)]
    entries = [entry for _, entry in sources]
    repositories = tuple(dict.fromkeys(as_text(entry["repository"]) for entry in entries if entry.get("repository")))
    table = Table.of_texts(
        ("Model", "Name", "Format", "Bytes", "SHA-256 of its header"),
        ((role, *_facts(entry)) for role, entry in sources),
    )
    version = as_text(origin.get("version") or "")
    rules = read_rules(origin)
    is_soup = origin.get("method") == SOUP
    return Making(
        SOUP if is_soup else "wise-ft",
        None if is_soup else rules.alpha,
        (*(_soup(origin, rules) if is_soup else _mixture(origin, rules)), *calibrations),
        tuple(_commands(origin, read_calibrations(checkpoint), name)),
        verify_command(origin, name),
        table,
        repositories,
        version,
    )


def _commands(origin: Mapping[str, Any], calibrations: Sequence[Mapping[str, Any]], name: str) -> Iterator[str]:
    """The lines that make a merged file again: the merge, and a calibration of what was written before for each."""
    written = f"uncalibrated-{name}" if calibrations else name
    yield recorded_command(origin, written)
    for number, entry in enumerate(calibrations, 1):
        output = name if number == len(calibrations) else f"calibrated-{number}-{name}"
        data_set = as_text(entry.get("dataset") or "DATASET")
        yield shlex.join(["wise", "calibrate", written, "--on", data_set, "-o", output])
        written = output


def _mixture(origin: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    first, second = (_called(origin.get(side)) for side in ("zeroshot", "finetuned"))
    yield (
        f"The weights of this model are a mixture of two: {first}, the zero-shot model, and {second}, the same model "
        f"after fine-tuning. Every tensor is `(1 - alpha) * zero_shot + alpha * fine_tuned` with "
        f"alpha = {rules.alpha:g}{', with the exceptions below' if _exceptions(origin, rules) else ''}."
    )
    yield (
        "This is WiSE-FT (Wortsman et al., CVPR 2022). A mixture costs no more than one model at inference, and is "
        "often more accurate under distribution shift than the fine-tuned model."
    )
    yield from (f"- {text}" for text in _exceptions(origin, rules))


def _exceptions(origin: Mapping[str, Any], rules: Rules) -> tuple[str, ...]:
    """The rules besides one alpha, a sentence each."""
    found = [f"alpha = {alpha:g} for tensors whose names match {_code(pattern)}" for pattern, alpha in rules.alpha_for]
    if rules.depth:
        found.append(f"alpha rises with depth, from {rules.depth[0]:g} to {rules.depth[1]:g} (LiNeS)")
    sides = {"zeroshot": "zero-shot", "finetuned": "fine-tuned"}
    found += [f"tensors that match {_code(pattern)} are the {sides[side]} model's" for side, pattern in rules.keep]
    if rules.only:
        found.append(f"only tensors that match {' or '.join(map(_code, rules.only))} are in the file")
    if rules.frozen_tolerance is not None:
        found.append(f"tensors that differ by no more than {rules.frozen_tolerance:g} of their size are copied")
    if rules.dtype:
        found.append(f"the weights are rounded to {rules.dtype.torch}")
    if "fisher" in origin:
        found.append("each parameter is weighted by its diagonal Fisher information")
    if isinstance(recalibrated := origin.get("recalibrated"), Mapping):
        images = as_number(recalibrated.get("images"))
        of = f"{plural(int(images), 'image')} of " if images is not None else ""
        data_set = escaped_markdown(as_text(recalibrated.get("dataset") or "a data set", WIDEST))
        found.append(f"batch-norm statistics were recomputed on {of}{data_set}")
    return tuple(found)


def _soup(origin: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    yield (
        f"The weights of this model are {_described_soup(origin['finetuned'])} that were fine-tuned from one zero-shot "
        f"model, {_called(origin.get('zeroshot'))} (Wortsman et al., ICML 2022)"
        f"{', with the exceptions below' if _exceptions(origin, rules) else ''}."
    )
    yield from (f"- {text}" for text in _exceptions(origin, rules))


def _described_soup(entry: Mapping[str, Any]) -> str:
    """What is averaged, and how."""
    how = "Model Stock's average" if entry.get("how") == "stock" else "the mean"
    if entry.get("selection") == "greedy":
        chosen_on = entry.get("chosen_on")
        name = as_text(chosen_on.get("dataset") or "", WIDEST) if isinstance(chosen_on, Mapping) else ""
        how += f", chosen greedily{f' on {escaped_markdown(name)}' if name else ''},"
    return f"{how} of {plural(len(_members(entry)), 'model')}"


def _calibrated(entry: Mapping[str, Any]) -> str:
    """A sentence on a temperature that a head was divided by."""
    temperature, images = as_number(entry.get("temperature")), as_number(entry.get("images"))
    on = escaped_markdown(as_text(entry.get("dataset") or "a data set", WIDEST))
    of = f"{plural(int(images), 'image')} of " if images is not None else ""
    value = "a temperature" if temperature is None else f"T = {temperature:.4f}"
    return f"Its logits are divided by {value}, fitted on {of}{on}, so that its confidence fits its accuracy."


def _sources(origin: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every source that a provenance names, with its role."""
    for role, key in (("zero-shot", "zeroshot"), ("fine-tuned", "finetuned")):
        entry = origin.get(key)
        if isinstance(entry, Mapping):
            if not _members(entry):
                yield role, entry
            if isinstance(entry.get("base"), Mapping):
                yield f"base of the {role} adapter", entry["base"]
            yield from ((f"{role}, member {number}", each) for number, each in enumerate(_members(entry), 1))


def _members(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    members = entry.get("members")
    return [each for each in members if isinstance(each, Mapping)] if isinstance(members, list) else []


def _facts(entry: Mapping[str, Any]) -> tuple[str, str, str, str]:
    size = as_number(entry.get("size"))
    name = as_text(entry.get("name") or "", WIDEST)
    revision = as_text(entry.get("revision") or "", WIDEST)
    return (
        f"{name} at {revision[:12]}" if revision else name,
        as_text(entry.get("kind") or "", WIDEST),
        "" if size is None else f"{size:,.0f}",
        as_text(entry.get("header_sha256") or "", WIDEST),
    )


def _called(entry: object) -> str:
    if isinstance(entry, Mapping) and _members(entry):
        return f"{_described_soup(entry)} (a soup)"
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return f"**{escaped_markdown(as_text(name, WIDEST))}**" if name else "a checkpoint"


def _code(text: str) -> str:
    """A text in a fixed-width font; between more backticks than it holds in a row."""
    shown = as_text(text, WIDEST)
    return f"`{shown}`" if "`" not in shown else f"`` {shown.replace('``', '` `')} ``"
