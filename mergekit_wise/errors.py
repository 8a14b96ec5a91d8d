"""Everything that can go wrong, as one tree. Knows nothing of how an error is shown.

    WiseError                  the work failed; the message says what to do next
    ├── UsageError             a value that was asked for makes no sense (exit code 2)
    ├── CheckpointError        a file cannot be read as a checkpoint
    ├── MismatchError          two checkpoints do not fit each other
    ├── NonFiniteError         mixing made infinities or NaN of finite numbers
    ├── OutputError            the result cannot be written where it was asked for
    ├── ModelError             a checkpoint cannot become a model, or lacks a head
    ├── SuiteError             a data set or suite is unknown, missing or damaged
    └── ResultsError           a file of results cannot be read or written

A message states what was expected, what was found, where, and what to do, in one or two sentences.
"""


class WiseError(Exception):
    """The root of every error that is the user's business rather than a defect of the tool."""


class UsageError(WiseError):
    """An argument is out of its range or cannot be understood."""


class CheckpointError(WiseError):
    """A file is missing, damaged, refused, or no checkpoint at all."""


class MismatchError(WiseError):
    """Two checkpoints differ in names, shapes or dtypes in a way that forbids mixing."""


class NonFiniteError(WiseError):
    """The mixture would hold infinities or NaN where both checkpoints hold numbers."""


class OutputError(WiseError):
    """The output cannot be written; an earlier output is as it was."""


class ModelError(WiseError):
    """No module with a head can be built from a checkpoint."""


class SuiteError(WiseError):
    """A suite or data set cannot be opened."""


class ResultsError(WiseError):
    """A results file cannot be read or appended to."""
