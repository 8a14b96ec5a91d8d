"""Progress in logs: a line every so often, about the task as a whole, and none of a terminal's characters."""

import re
import subprocess
import sys
import time

from mergekit_wise.cli.log_lines import EVERY, logged_lines


def lines_of(*reports, wait=True):
    """What is logged until there is a line."""
    found, deadline = [], time.monotonic() + 20
    with logged_lines(found.append, 0.02 if wait else EVERY) as progress:
        for report in reports:
            progress(*report)
        while wait and not found and time.monotonic() < deadline:
            time.sleep(0.005)
    return found


def test_a_line_has_the_amount_the_rate_and_the_time_left():
    """The name, what is done of how much, the speed since the task began, and the time that is left at this speed."""
    line = lines_of(("evaluating", 0, 4000, "images"), ("evaluating; ImageNet-R", 1000, 4000, "images"))[0]
    found = re.fullmatch(r"evaluating; ImageNet-R: 1,000/4,000 images \(25 %\), ([\d,.]+)/s, (0:\d\d:\d\d) left", line)
    assert found, line


def test_bytes_have_units():
    """Amounts and speeds of bytes are in MB and GB."""
    line = lines_of(("Merging", 0, 4 * 10**9, "bytes"), ("Merging", 10**9, 4 * 10**9, "bytes"))[0]
    assert re.fullmatch(r"Merging: 1 GB of 4 GB \(25 %\), [\d.]+ .B/s, 0:\d\d:\d\d left", line), line


def test_a_resumed_task_has_the_speed_of_this_run():
    """What an earlier run did is part of the amount, and not of the speed."""
    line = lines_of(("fine-tuning", 1000, 4000, "images"))[0]
    assert line == "fine-tuning: 1,000/4,000 images (25 %)"


def test_the_task_that_began_first_is_reported():
    """Parts of a task, and tasks that have ended, are not."""
    reports = [("hashing", 1, 1, "models"), ("evaluating", 0, 10, "images"), ("ImageNet", 1, 5, "images")]
    assert lines_of(*reports)[0].startswith("evaluating: 0/10 images (0 %)")
    assert lines_of(("one", 0, 5, "images"), ("one", 5, 5, "images"))[0].startswith("working for 0:00:0")


def test_a_short_command_writes_nothing():
    """A line comes after a minute, and there is none of a command that takes less."""
    assert EVERY == 60
    assert lines_of(("evaluating", 0, 10, "images"), wait=False) == []


def test_a_log_has_lines_and_no_controls():
    """Where stderr is no terminal, lines end with a line feed, and nothing else controls a terminal."""
    script = """
import time
from mergekit_wise.cli.console import say
from mergekit_wise.cli.log_lines import logged_lines
with logged_lines(say, 0.05) as progress:
    for done in range(10):
        progress("evaluating", done, 10, "images")
        time.sleep(0.05)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) > 2
    assert all(line.startswith(("evaluating: ", "working for ")) for line in lines)
    assert not re.search(r"[\r\x1b]", done.stderr)
