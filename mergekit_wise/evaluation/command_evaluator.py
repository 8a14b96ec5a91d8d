"""A command line that evaluates a merged file and prints JSON, as an evaluator of any task.

The command runs without a shell, in a process group of its own, which an interruption ends with it.
"""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.evaluation.own_evaluator import Mixture, TaskResult
from mergekit_wise.evaluation.printed_json import last_object
from mergekit_wise.evaluation.task_results import FORM, parse_results
from mergekit_wise.wording import shown, visible

FILE = "{file}"
"""What stands for the merged file in a command."""

MOST_OUTPUT = 1 << 28
"""Bytes that a command may print; two million items take a sixth."""

LAST_LINES, LINE = 20, 300
"""Lines of a command's own output, and characters of each, that an error shows."""

PATIENCE = 5.0
"""Seconds in which an interrupted command may end by itself."""

POLL = 0.25
"""Seconds after which the amount of output is looked at again."""


@dataclass(frozen=True, slots=True)
class CommandEvaluator:
    """Runs a command for each mixture.

    Attributes:
        command: the words of the command line, one of them with ``{file}`` in it.
        title: the line as it was given.
        name: of the suite: the name of the script.
        identity: the line, and digests of the files that it names.
        reference: the name of the data set that is the reference; empty if none is.
    """

    command: tuple[str, ...]
    title: str
    name: str
    identity: str
    reference: str = ""

    @classmethod
    def of(cls, line: str, version: str = "", reference: str = "") -> "CommandEvaluator":
        """The evaluator of a line; `version` is part of its identity. Raises UsageError if it cannot be one."""
        try:
            words = tuple(shlex.split(line))
        except ValueError as error:
            raise UsageError(f"--command {shown(line)}: {str(error).lower()}. Close every quotation mark.") from None
        if not any(FILE in word for word in words):
            raise UsageError(
                f"--command {shown(line)}: does not say where the merged file goes. Write {{file}} in its place: "
                "'python my_eval.py {file}'."
            )
        files = [word for word in words if FILE not in word and Path(word).is_file()]
        digests = [f"{word} {_digest(word)}" for word in files]
        script = next((word for word in files[::-1] if word != words[0]), words[0])
        name = Path(script).stem or "command"
        return cls(words, line, name, "\n".join([*words, *digests, version]), reference)

    def __call__(self, mixture: Mixture) -> Sequence[TaskResult]:
        """What the command prints of the mixture's file. Raises SuiteError if it fails or prints no result."""
        words = [word.replace(FILE, str(mixture.file)) for word in self.command]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
                )
            except OSError as error:
                raise SuiteError(
                    f"--command: {shown(words[0])} cannot be run: {error.strerror}. It runs without a shell; for pipes "
                    "and variables write sh -c '...'."
                ) from error
            code = _finished(process, (out, err))
            if code is None:
                raise SuiteError(f"--command printed more than {MOST_OUTPUT:,} bytes and was ended.{_tail(out, err)}")
            if code:
                how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
                raise SuiteError(f"--command {how}: {shown(self.title)}.{_tail(out, err)}")
            out.seek(0)
            try:
                value = last_object(out.read())
            except ValueError as error:
                raise SuiteError(f"--command printed JSON that cannot be used: {error}.{_tail(out, err)}") from None
            if value is None:
                raise SuiteError(
                    f"--command printed no JSON object: {shown(self.title)}. Its last line of output should be {FORM}."
                    f"{_tail(out, err)}"
                )
            return parse_results(value, "--command", self.name)


def _finished(process: "subprocess.Popen[bytes]", outputs: Sequence[IO[bytes]]) -> int | None:
    """The exit code of a process; None if it was ended because it prints without end. Interrupted, it is ended."""
    try:
        while True:
            try:
                return process.wait(POLL)
            except subprocess.TimeoutExpired:
                if sum(os.fstat(each.fileno()).st_size for each in outputs) > MOST_OUTPUT:
                    return None
    finally:
        if process.returncode is None:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and what it started, politely at first."""
    _signal(process, signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    try:
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)
    except ProcessLookupError:  # it has ended
        pass


def _tail(out: IO[bytes], err: IO[bytes]) -> str:
    """The last lines of what a command printed, as lines of a message."""
    lines: list[str] = []
    for name, stream in (("stdout", out), ("stderr", err)):
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - LAST_LINES * LINE))
        found = stream.read().decode("utf-8", "replace").splitlines()[-LAST_LINES:]
        lines += [f"    {name}: {visible(each[:LINE])}" for each in found if each.strip()]
    return "\n" + "\n".join(lines) if lines else " It printed nothing."


def _digest(file: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
