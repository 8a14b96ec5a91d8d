"""What people see: in terminals of every width, with and without colours, and where there is no terminal at all."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest
import torch
import typer
from safetensors.torch import save_file

from mergekit_wise.cli.app import app
from mergekit_wise.options import options_of

WISE = ("-m", "mergekit_wise")
ESCAPE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")
COLOURS = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|9[0-7])(?:;\d+)*m")
NAMES = ("MNIST", "ImageNet-V2 (matched frequency)", "WILDS iWildCam, out of distribution")
BARS = """
import sys, time
from mergekit_wise.cli.progress import bars
names, pause, stop = eval(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
with bars() as progress:
    for name in names:
        for done in range(5):
            progress(name, 2500 * done, 10_000, "images")
            time.sleep(pause)
            if done == stop:
                print("ready", flush=True)
                time.sleep(60)
"""
TABLE = """
from mergekit_wise.cli.console import show
from mergekit_wise.report.table import Table
show(Table.of_texts({columns!r}, {rows!r}, {marked!r}), "A title")
"""


@pytest.fixture
def terminal(tmp_path):
    """Run Python in a terminal of so many columns; returns the exit code and all that it wrote."""

    def run(columns, *words, interrupt_at=None, **changed):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in LOUD}
        environment |= {"TERM": "xterm-256color", **changed}
        process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            cwd=tmp_path,
        )
        os.close(theirs)
        written = b""
        while piece := read(ours):
            written += piece
            if interrupt_at is not None and interrupt_at in written:
                process.send_signal(signal.SIGINT)
                interrupt_at = None
        os.close(ours)
        return process.wait(60), written.decode()

    return run


LOUD = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "GITHUB_ACTIONS"}


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""


def screen(written):
    """The lines that stand on the screen and above it in the end: a terminal of the few things that are used here."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[[?\d;]*[A-Za-z]|[\r\n])", written):
        escape = ESCAPE.fullmatch(part)
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif escape and escape[2] == "A":
            row -= int(escape[1] or 1)
        elif escape and escape[2] == "K":
            assert escape[1] == "2"
            lines[row] = ""
        elif escape:
            assert escape[2] in "mhl", part
        else:
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def test_the_terminal_of_these_tests_does_what_terminals_do():
    """Overwriting, erasing, going up."""
    assert screen("one\r\ntwo\rT\x1b[1A\rO\r\n\n") == ["One", "Two", ""]
    assert screen("\x1b[1mone\x1b[0m\r\x1b[2Ktw") == ["tw"]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_merge_fits_into_the_terminal(columns, terminal, pair):
    """The bar is left on one line, the summary is wrapped at words."""
    code, written = terminal(columns, *WISE, "merge", *pair, "-o", "out.safetensors")
    lines = screen(written)
    assert code == 0
    assert max(map(len, lines)) <= columns
    assert re.fullmatch(r"Merging( ━+)? 8\.5/8\.5 kB .*\d:\d\d:\d\d", lines[0]), lines[0]
    assert all(line.startswith("  ") for line in lines[lines.index("  4 tensors mixed at alpha 0.5") :] if line)
    text = " ".join(" ".join(lines).split())
    assert "1 tensor of integers that differ copied from the fine-tuned file: steps" in text
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 120])
def test_bars_tell_name_and_amount_on_one_line_in_every_width(columns, terminal):
    """Whatever else is left out."""
    written = terminal(columns, "-c", BARS, repr(NAMES), 0.04, -1)[1]
    assert "7500/10000" not in written.rpartition("10000/10000")[2]
    lines = screen(written)
    assert [line for line in lines if line] == lines[:3]
    for name, line in zip(NAMES, lines, strict=False):
        assert line.startswith(name[:8])
        assert "10000/10000 images" in line
        assert len(line) <= columns
        assert ("━" in line, "/s" in line, "0:00:0" in line) == (columns >= 56, columns >= 72, columns >= 36)


def test_more_bars_than_the_terminal_has_lines(terminal):
    """What is done stays above; nothing is hidden, and nothing twice."""
    names = [f"data set {index}" for index in range(40)]
    lines = screen(terminal(80, "-c", BARS, repr(names), 0, -1)[1])
    assert [line.split("  ")[0].split(" ━")[0] for line in lines if line] == names


def test_a_task_that_comes_again_is_drawn_again(terminal):
    """Two checkpoints on one data set."""
    lines = screen(terminal(80, "-c", BARS, repr(["again", "again"]), 0, -1)[1])
    assert [line.split()[0] for line in lines if line] == ["again", "again"]
    assert all("10000/10000" in line for line in lines[:2])


def test_the_cursor_comes_back_after_an_interrupt(terminal):
    """A terminal without one is a nuisance for everything that follows."""
    code, written = terminal(80, "-c", BARS, repr(NAMES), 0, 2, interrupt_at=b"ready")
    assert code != 0
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize("changed", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours(changed, terminal):
    """By default; not under NO_COLOR; and no control sequence at all on a terminal that knows none."""
    written = terminal(80, *WISE, "inspect", "nothing", **changed)[1]
    assert "nothing: no such file" in written
    assert bool(COLOURS.search(written)) == (changed == {})
    assert ("\x1b" in written) == ("TERM" not in changed)


@pytest.mark.parametrize("changed", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_bars_without_colours(changed, terminal):
    """They are still drawn, on a dumb terminal once."""
    written = terminal(80, "-c", BARS, repr(NAMES), 0, -1, **changed)[1]
    assert not COLOURS.search(written)
    assert [line[:5] for line in screen(written) if line] == [name[:5] for name in NAMES]
    assert ("\x1b" in written) == ("TERM" not in changed)


@pytest.mark.parametrize("force", [{}, {"FORCE_COLOR": "1"}, {"GITHUB_ACTIONS": "true"}])
def test_no_bars_where_there_is_no_terminal(force, pair, tmp_path):
    """Nor anything else that a log should not hold, even where colours are forced."""
    words = [sys.executable, *WISE, "merge", *map(str, pair), "-o", "out"]
    environment = {name: value for name, value in os.environ.items() if name not in LOUD} | force
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b[?25" not in done.stdout
    assert "\r" not in done.stdout


def test_lines_are_not_broken_where_there_is_no_terminal(tmp_path):
    """For grep, and for whoever reads a log in a wide window."""
    names = [f"a.rather.long.name.of.a.layer.that.counts.its.steps.{index}" for index in range(4)]
    save_file({name: torch.tensor(1) for name in names}, tmp_path / "a")
    save_file({name: torch.tensor(2) for name in names}, tmp_path / "b")
    words = [sys.executable, *WISE, "merge", "a", "b", "-o", "c"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert f"  4 tensors of integers that differ copied from the fine-tuned file: {', '.join(names)}\n" in done.stdout
    done = subprocess.run(
        [*words[:3], "merge", "a", "b", "-o", "no/" * 80], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_errors_are_wrapped_at_words_and_paths_are_left_whole(columns, terminal):
    """A path can be copied, however narrow the terminal is."""
    path = "/".join(["some", "very", "long", "path"] * 6)
    written = terminal(columns, *WISE, "inspect", path, NO_COLOR="1")[1]
    plain = ESCAPE.sub("", written)
    assert plain.split() == f"error: {path}: no such file. Check the path.".split()
    assert all(len(line) <= columns for line in plain.split("\r\n") if path not in line)


def help_of(name, written):
    """All words of a help page, however it is wrapped."""
    return set(re.findall(r"[\w-]+", ESCAPE.sub("", written)))


@pytest.mark.parametrize("name", ["merge", "sweep"])
@pytest.mark.parametrize("columns", [40, 60, 80])
def test_help_fits_and_names_every_option_in_full(name, columns, terminal):
    """None is cut off for want of room."""
    code, written = terminal(columns, *WISE, name, "--help")
    assert code == 0
    assert "\x1b" not in written
    assert max(map(len, written.split("\r\n"))) <= columns
    assert {
        f"--{'no-' * (option.is_flag and bool(option.default))}{option.key}"
        for option in options_of(name).values()
        if not option.option.is_argument
    } <= help_of(name, written)


def test_help_lists_every_command_with_its_whole_sentence(terminal):
    """And nothing that few people need."""
    words = " ".join(terminal(50, *WISE, "--help")[1].split())
    written = re.sub(r"(?<=\w)-\s+(?=\w)", "-", words)  # lines may be broken at hyphens
    for name, command in typer.main.get_command(app).commands.items():
        assert f"{name} {' '.join(command.help.split())}" in written
    assert "--show-completion" not in written
    assert "  Install completion for\r\n" in terminal(40, *WISE, "--help")[1]


COLUMNS = ("alpha", "Ref.", "ImageNet-V2", "ImageNet-R", "ImageNet-Sketch", "ObjectNet", "Avg shifts", "Avg both")
ROWS = tuple((f"{row / 10:g}", *(f"{row}{column}.{row}" for column in range(7))) for row in range(11))


@pytest.mark.parametrize(("columns", "pieces"), [(30, 4), (40, 3), (80, 1)])
def test_a_table_that_is_too_wide_comes_in_pieces(columns, pieces, terminal):
    """Every number whole, in its row; the rows named in each piece."""
    script = TABLE.format(columns=COLUMNS, rows=ROWS, marked=(False,) * 11)
    lines = screen(terminal(columns, "-c", script)[1])
    assert max(map(len, lines)) <= columns
    found = {row[0]: [] for row in ROWS}
    for cells in filter(None, map(str.split, lines)):
        if cells[0] in found:
            found[cells[0]] += cells[1:]
    assert found == {row[0]: list(row[1:]) for row in ROWS}
    assert sum(line.split()[:1] == ["alpha"] for line in lines) == pieces


def test_a_long_name_is_folded_and_its_numbers_are_not(terminal):
    """In a terminal; in a pipe everything is on one line."""
    name = "visual.transformer.resblocks.11.attn.in_proj_weight"
    script = TABLE.format(
        columns=("Tensor", "dtype", "Shape"), rows=((name, "fp32", "2304 x 768 x 16"),), marked=(True,)
    )
    lines = screen(terminal(38, "-c", script)[1])
    assert "fp32 2304 x 768 x 16" in lines[2]
    assert name == "".join(line.split(" ")[0] for line in lines[2:])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"{name}  fp32 2304 x 768 x 16"


def test_a_cell_that_is_wider_than_the_terminal_loses_nothing(terminal):
    """It is folded as well."""
    cell = "fine-tuned where they differ, and zero-shot everywhere else"
    script = TABLE.format(columns=("Tensor", "Gets", "Bytes"), rows=(("h", cell, "12"),), marked=(False,))
    lines = screen(terminal(40, "-c", script)[1])
    assert max(map(len, lines)) <= 40
    assert f"h {cell} Tensor Bytes h 12" in " ".join(" ".join(lines[2:]).split())


def test_names_that_look_like_markup_are_shown_as_they_are(wise, tmp_path):
    """Neither styles nor emoji."""
    name = "[red]odd[/] :smile: [link=x]"
    save_file({name: torch.ones(2)}, tmp_path / "[bold]a.st")
    for words in ((), ("--json",)):
        printed = wise("inspect", tmp_path / "[bold]a.st", *words).stdout
        assert name in printed
        assert "[bold]a.st" in printed


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_what_the_terminal_cannot_show_is_escaped(encoding, terminal, tmp_path):
    """A file name that is no text, a tensor of a Greek name, the letters of a bar: no run fails for them."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xce\xb1.st")
    save_file({"α": torch.ones(2)}, tmp_path / "plain.st")
    os.rename(tmp_path / "plain.st", path)
    code, written = terminal(80, *WISE, "inspect", path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (code, "Traceback" in written) == (0, False)
    assert ("α" if encoding == "utf-8" else "\\u03b1") in written
    code, written = terminal(80, *WISE, "merge", path, path, "-o", "out", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (code, "Traceback" in written) == (0, False)


def test_a_pipe_that_closes_early_is_no_error(pair):
    """As in: wise inspect FILE | head -1."""
    program = subprocess.Popen(
        [sys.executable, *WISE, "inspect", str(pair[0])], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    program.stdout.close()
    program.wait(60)
    assert program.stderr.read() == b""
