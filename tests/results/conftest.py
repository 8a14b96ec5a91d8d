"""The makers of results files that the tests of the report use, too."""

from tests.report.conftest import lines, results

__all__ = ["lines", "results"]
