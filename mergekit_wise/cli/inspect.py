"""The command ``wise inspect``."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergekit_wise.api.inspect import Inspection
    from mergekit_wise.options import InspectOptions


def inspect(options: "InspectOptions", json: bool) -> None:
    """Show what a checkpoint holds: tensors, metadata, provenance, architecture."""
    from mergekit_wise.api.inspect import inspect
    from mergekit_wise.cli.console import line_writer, notes, out, show, show_json
    from mergekit_wise.option_types import run
    from mergekit_wise.report.tensor_tables import TENSOR_COLUMNS, tensor_rows, tensor_table

    found = run(inspect, options)
    notes(found.notes)
    if json:
        show_json(found.to_dict())
        return
    if out.on_screen:
        show(tensor_table(found.tensors), f"{options.checkpoint}: {found.kind}")
    else:
        write = line_writer(*TENSOR_COLUMNS)
        for row in tensor_rows(found.tensors):
            write(row)
        out.print(f"\n{options.checkpoint}: {found.kind}")
    for line in _lines(found):
        out.print(line)


def _lines(found: "Inspection") -> list[str]:
    from mergekit_wise.wording import in_bytes, plural, shown

    elements = sum(info.count for info in found.tensors)
    guess = found.architecture
    lines = [
        "",
        f"{plural(len(found.tensors), 'tensor')}, {elements:,} elements, file of {in_bytes(found.size)}",
        *(_adapter(found) or [f"architecture: {', '.join(guess.names) or 'unknown'}; {guess.reason}"]),
        f"header SHA-256: {found.digest}",
    ]
    lines += [f"metadata {shown(key)}: {shown(value, 1000)}" for key, value in found.metadata.items()]
    if found.origin:
        lines.append("merged by wise:")
        lines += [f"  {key}: {shown(_plain(value), 1000)}" for key, value in found.origin.items()]
    return lines


def _adapter(found: "Inspection") -> list[str]:
    """What an adapter is, and what to do with it; empty for a model."""
    from mergekit_wise.models.adapters import ADVICE, article
    from mergekit_wise.wording import shown

    adapter = found.adapter
    if adapter is None:
        return []
    use = f"cannot be applied exactly: {adapter.refusal}. {ADVICE}"
    if adapter.refusal is None:
        use = f"use it as the fine-tuned checkpoint: wise merge BASE {found.path} -o OUTPUT"
    return [
        f"{article(adapter.kind)} adapter of {adapter.parameters:,} parameters, which changes a base model",
        *(f"  {key}: {shown(_plain(value), 1000)}" for key, value in adapter.settings.items()),
        use,
    ]


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
