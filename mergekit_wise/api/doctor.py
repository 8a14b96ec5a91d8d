"""Examine the installation, the machine, the folders and the network: for people who look for a fault."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.diagnosis.finding import Finding, Section
from mergekit_wise.option_types import takes
from mergekit_wise.options import DoctorOptions
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.report.table import Table


@dataclass(frozen=True, slots=True, repr=False)
class DoctorReport(ResultObject):
    """What was found, by subject. `usable` says that nothing makes the tool unusable."""

    sections: tuple[Section, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """What does not work, with what fixes it."""
        return tuple(
            finding
            for section in self.sections
            for finding in section.findings
            if finding.level in ("problem", "error")
        )

    @property
    def usable(self) -> bool:
        """Whether the tool can be used, perhaps not for everything."""
        return all(finding.level != "error" for finding in self.problems)

    def _summary(self) -> str:
        return f"{'usable' if self.usable else 'unusable'}, {plural(len(self.problems), 'problem')}"

    def _entry(self) -> Mapping[str, Any]:
        return {"usable": self.usable, "problems": len(self.problems), "sections": self.sections}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return [{"section": each.title} | asdict(found) for each in self.sections for found in each.findings]

    def _tables(self) -> "Sequence[Table]":
        from mergekit_wise.report.table import Table

        rows = [
            (each.title, found.name, found.value, ": ".join(filter(None, (found.level, found.text))), found.command)
            for each in self.sections
            for found in each.findings
        ]
        return [Table.of_texts(("", "", "Found", "", "Command"), rows)]


@takes(DoctorOptions)
def doctor(options: DoctorOptions) -> DoctorReport:
    """Examine everything that the tool depends on, and say what does not work and what fixes it.

    Nothing is changed. The result holds no token and no user name, and can be sent with a bug report. The hub is asked
    whether it answers, for two seconds at most, unless ``HF_HUB_OFFLINE`` is set. Raises nothing for what it finds.
    """
    return DoctorReport(tuple(examine(options)))


def examine(options: DoctorOptions) -> Iterator[Section]:
    """The sections one by one, so that they can be shown before the next is known; what takes seconds comes last."""
    from mergekit_wise.diagnosis import machine, packages
    from mergekit_wise.diagnosis.hub import Question

    yield packages.versions()
    yield packages.compiled_modules()
    yield packages.optional_packages()
    yield machine.processor_and_memory()
    yield machine.terminal()
    question = Question(options.endpoint)  # is answered while other things are examined
    yield guarded("Settings", _settings)
    yield guarded("Folders", lambda: _folders(options.data, question.downloads))
    yield guarded("Data sets", lambda: _data_sets(options.data))
    yield question.section()
    yield guarded("Devices", _devices)


def guarded(title: str, examined: Callable[[], Section]) -> Section:
    """A section, or why there is none: what is needed to examine something may be the very thing that is broken."""
    try:
        return examined()
    except ImportError as error:
        return Section(title, (Finding("imports", str(error), "error", "a package that wise needs cannot be loaded"),))
    except Exception as error:  # such as a working folder that was removed; the rest is examined all the same
        found = f"{type(error).__name__}: {error}"
        return Section(title, (Finding("examination", found, "problem", "cannot be completed"),))


def _settings() -> Section:
    from mergekit_wise.diagnosis.settings import settings

    return settings()


def _folders(given: Path | None, downloads: Path | None) -> Section:
    from mergekit_wise.diagnosis.folders import data_folder, folders

    return folders(data_folder(given), downloads)


def _data_sets(given: Path | None) -> Section:
    from mergekit_wise.datasets.catalog import ROOT_VARIABLE
    from mergekit_wise.diagnosis.folders import data_folder, data_sets

    named = given is None or str(given) == os.environ.get(ROOT_VARIABLE)  # the command line reads the variable itself
    return data_sets(data_folder(given), ROOT_VARIABLE if named else "--data")


def _devices() -> Section:
    from mergekit_wise.diagnosis.devices import devices

    return devices()
