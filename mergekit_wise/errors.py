"""The tree of errors. Knows nothing of how an error is shown.

    WiseError                  the command failed; the message says what to do next
    ├── UsageError             an option or argument has an impossible value (exit code 2)
    ├── CheckpointError        a file cannot be read as a checkpoint
    ├── MismatchError          two checkpoints do not fit each other
    ├── NonFiniteError         mixing finite numbers gave infinities or NaN
    ├── OutputError            the output cannot be written
    ├── ModelError             no model can be built from a checkpoint, or it lacks a head
    ├── SuiteError             a data set or suite is unknown, missing or damaged
    ├── ResultsError           a results file cannot be read or written
    └── Unsaved                numbers are measured, and a file for them cannot be written; a Results- and OutputError

    Interrupted                Ctrl-C or SIGTERM, no error of either side; a KeyboardInterrupt

A message says what is wrong, what was found and where, and how to fix it, in one or two sentences.
"""

import signal
from typing import Any


class WiseError(Exception):
    """The root of all errors that the user can fix; any other exception is a defect of the tool."""


class UsageError(WiseError):
    """An option or argument is out of range or cannot be understood."""


class CheckpointError(WiseError):
    """A file is missing, damaged, refused, or not a checkpoint."""


class MismatchError(WiseError):
    """Two checkpoints have names, shapes or dtypes that do not fit each other."""


class NonFiniteError(WiseError):
    """The merged model would hold infinities or NaN where both checkpoints hold finite numbers."""


class OutputError(WiseError):
    """The output cannot be written; an earlier output is unchanged."""


class ModelError(WiseError):
    """No model with a head can be built from a checkpoint."""


class SuiteError(WiseError):
    """A suite or data set cannot be opened."""


class ResultsError(WiseError):
    """A results file cannot be read or appended to."""


class Unsaved(ResultsError, OutputError):
    """Something is measured, and a file for it cannot be written; `found` is what the function would have returned.

    If the work was not complete, `found` is what was measured before.
    """

    def __init__(self, text: str, found: Any) -> None:
        super().__init__(text)
        self.found = found


class Interrupted(KeyboardInterrupt):
    """A signal stopped the work.

    Attributes:
        number: the signal, by default SIGINT.

    The text says what was saved and how to continue; it is empty if nothing is to be said.
    """

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @classmethod
    def of(cls, error: KeyboardInterrupt, text: str) -> "Interrupted":
        """The interruption `error` with a text, and its signal."""
        return cls(text, error.number if isinstance(error, Interrupted) else signal.SIGINT)
