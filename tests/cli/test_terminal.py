"""Output in terminals of every width, with and without colours, and where there is no terminal."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from itertools import pairwise

import pytest
import torch
import typer
from safetensors.torch import save_file

from mergekit_wise.cli import console
from mergekit_wise.cli.app import app
from mergekit_wise.options import COMMANDS, options_of

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
    """Run Python in a terminal of the given width; returns the exit code and everything that was written."""

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
    """The lines that a terminal shows in the end, those above the screen included."""
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


def test_the_emulated_terminal_behaves_like_one():
    """The emulation in these tests overwrites, erases and moves up as a terminal does."""
    assert screen("one\r\ntwo\rT\x1b[1A\rO\r\n\n") == ["One", "Two", ""]
    assert screen("\x1b[1mone\x1b[0m\r\x1b[2Ktw") == ["tw"]


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_merge_fits_into_the_terminal(columns, terminal, pair):
    """The progress bar stays on one line, and the summary is wrapped at words, in every width."""
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
def test_bars_have_name_and_amount_on_one_line_in_every_width(columns, terminal):
    """Every bar has its name and amount on one line; narrow terminals leave out the bar, the rate and the time."""
    written = terminal(columns, "-c", BARS, repr(NAMES), 0.04, -1)[1]
    assert "7500/10000" not in written.rpartition("10000/10000")[2]
    lines = screen(written)
    assert [line for line in lines if line] == lines[:3]
    for name, line in zip(NAMES, lines, strict=False):
        assert line.startswith(name[:8])
        assert "10000/10000 images" in line
        assert len(line) <= columns
        assert ("━" in line, "/s" in line, "0:00:0" in line) == (columns >= 56, columns >= 72, columns >= 36)


def test_more_bars_than_lines_are_each_drawn_once(terminal):
    """Finished bars scroll up, and each of 40 is drawn exactly once."""
    names = [f"data set {index}" for index in range(40)]
    lines = screen(terminal(80, "-c", BARS, repr(names), 0, -1)[1])
    assert [line.split("  ")[0].split(" ━")[0] for line in lines if line] == names


def test_parts_of_a_task_leave_no_line(terminal):
    """A task and the part of it that goes on have a bar each, and in the end there is the line of the task alone."""
    script = """
from mergekit_wise.cli.progress import bars
from mergekit_wise.progress import Whole
import time
with bars() as progress:
    whole = Whole(progress)
    whole.begin("evaluating", {f"data set {index}": 100 for index in range(30)}, "images")
    for index in range(30):
        for done in range(0, 101, 50):
            whole(f"data set {index}", done, 100, "images")
            time.sleep(0.01)
"""
    written = terminal(80, "-c", script)[1]
    (line,) = filter(None, screen(written))
    assert line.startswith("evaluating")
    assert "3000/3000 images" in line
    assert " data set " not in line
    assert re.search(r"evaluating.*\d+/3000 images.*left", written)
    assert re.search(r"data set \d+ .*\d+/100 images", written)


def test_a_command_says_that_it_begins_before_it_loads_libraries(terminal):
    """The first thing on the screen of a long command is there before torch is imported, and is gone in the end."""
    code, written = terminal(80, "-X", "importtime", *WISE, "finetune", "none", "--train", "digits", "-o", "out")
    assert code == 1
    assert written.index("Starting wise finetune ...") < re.search(r"\| +torch\b", written).start()
    assert written.rindex("\x1b[2K") > written.index("Starting wise finetune ...")


@pytest.mark.parametrize(
    "name", ["merge", "sweep", "eval", "finetune", "demo", "recipe", "calibrate", "zeroshot", "data-fetch"]
)
def test_every_long_command_reports_progress(name):
    """By this it is known which commands say that they begin."""
    assert hasattr(COMMANDS[name][0], "progress")


def test_a_terminal_shows_that_a_command_works_between_its_tasks(terminal):
    """As long as there is no task, as while a model is built, a bar says so, and it leaves nothing behind."""
    script = "import time\nfrom mergekit_wise.cli.progress import bars\nwith bars():\n    time.sleep(0.5)"
    written = terminal(80, "-c", script)[1]
    assert re.search(r"working.*0:00:00", written)
    assert not "".join(screen(written)).strip()


def test_a_repeated_task_has_a_bar_of_its_own(terminal):
    """A task with the name of a finished one gets a bar of its own."""
    lines = screen(terminal(80, "-c", BARS, repr(["again", "again"]), 0, -1)[1])
    assert [line.split()[0] for line in lines if line] == ["again", "again"]
    assert all("10000/10000" in line for line in lines[:2])


def test_the_cursor_is_shown_again_after_an_interrupt(terminal):
    """After Ctrl-C the cursor is shown again."""
    code, written = terminal(80, "-c", BARS, repr(NAMES), 0, 2, interrupt_at=b"ready")
    assert code != 0
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize("changed", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_follow_the_terminal_and_no_color(changed, terminal):
    """Errors are coloured by default and not under NO_COLOR; a dumb terminal gets no control sequence at all."""
    written = terminal(80, *WISE, "inspect", "nothing", **changed)[1]
    assert "nothing: no such file" in written
    assert bool(COLOURS.search(written)) == (changed == {})
    assert ("\x1b" in written) == ("TERM" not in changed)


@pytest.mark.parametrize("changed", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_bars_without_colours(changed, terminal):
    """Bars are drawn without colours too, and on a dumb terminal once, without control sequences."""
    written = terminal(80, "-c", BARS, repr(NAMES), 0, -1, **changed)[1]
    assert not COLOURS.search(written)
    assert [line[:5] for line in screen(written) if line] == [name[:5] for name in NAMES]
    assert ("\x1b" in written) == ("TERM" not in changed)


@pytest.mark.parametrize("force", [{}, {"FORCE_COLOR": "1"}, {"GITHUB_ACTIONS": "true"}])
def test_no_bars_without_a_terminal(force, pair, tmp_path):
    """A log gets neither bars nor carriage returns, even where colours are forced."""
    words = [sys.executable, *WISE, "merge", *map(str, pair), "-o", "out"]
    environment = {name: value for name, value in os.environ.items() if name not in LOUD} | force
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b[?25" not in done.stdout
    assert "\r" not in done.stdout


def test_lines_are_not_wrapped_without_a_terminal(tmp_path):
    """In a pipe every message is one line, so that grep finds it."""
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
    """Errors are wrapped at words, and a path is never broken, so that it can be copied."""
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
    """Help fits into the terminal, and no option's name is cut off."""
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
    """`wise --help` has every command's whole description, and leaves out options for few users."""
    words = " ".join(terminal(50, *WISE, "--help")[1].split())
    written = re.sub(r"(?<=\w)-\s+(?=\w)", "-", words)  # lines may be broken at hyphens
    for name, command in typer.main.get_command(app).commands.items():
        assert f"{name} {' '.join(command.help.split())}" in written
    assert "--show-completion" not in written
    assert "  Install completion for\r\n" in terminal(40, *WISE, "--help")[1]


HEADS = ("alpha", "Ref.", "ImageNet-V2", "ImageNet-R", "ImageNet-Sketch", "ObjectNet", "Avg shifts", "Avg both")
ROWS = tuple((f"{row / 10:g}", *(f"{row}{column}.{row}" for column in range(7))) for row in range(11))


@pytest.mark.parametrize(("columns", "pieces"), [(30, 3), (40, 2), (80, 1)])
def test_a_table_that_is_too_wide_comes_in_pieces(columns, pieces, terminal):
    """A wide table is split by columns: every number is whole and in its row, and each piece names its rows."""
    script = TABLE.format(columns=HEADS, rows=ROWS, marked=(False,) * 11)
    lines = screen(terminal(columns, "-c", script)[1])
    assert max(map(len, lines)) <= columns
    found = {row[0]: [] for row in ROWS}
    for cells in filter(None, map(str.split, lines)):
        if cells[0] in found:
            found[cells[0]] += cells[1:]
    assert found == {row[0]: list(row[1:]) for row in ROWS}
    assert sum(line.split()[:1] == ["alpha"] for line in lines) == pieces


@pytest.mark.parametrize("columns", [36, 60])
def test_every_piece_of_a_grids_table_names_both_parameters(columns, terminal):
    """Rows of a grid are told apart by two columns, which each piece of a wide table repeats."""
    rows = [(f"{row // 3 / 2:g}", f"0.{row % 3}", *(f"{row}{column}.5" for column in range(6))) for row in range(9)]
    script = f"""
from mergekit_wise.cli.console import show
from mergekit_wise.report.table import Table
heads = ("depth-first", "depth-last", *({HEADS[1:7]!r}))
show(Table.of_cells(heads, {rows!r}, [False] * 9, names=2), "A title")
"""
    lines = screen(terminal(columns, "-c", script)[1])
    assert max(map(len, lines)) <= columns
    found = {row[:2]: [] for row in rows}
    for cells in filter(None, map(str.split, lines)):
        if tuple(cells[:2]) in found:
            found[tuple(cells[:2])] += cells[2:]
    assert found == {row[:2]: list(row[2:]) for row in rows}


def test_a_heading_is_broken_where_that_saves_a_piece_of_the_table(terminal):
    """A sweep of the suite `digits` fits into 80 columns: its last heading has two lines there, and one elsewhere."""
    heads = ("alpha", "Ref.", "Inverted", "Rotated", "Blurred", "Noisy", "Low contrast", "Small", "Printed")
    rows = (("0.25", "*92.5", *("81.5",) * 7, "79.1", "*90.9"),)
    script = TABLE.format(columns=(*heads, "Avg shifts", "Avg both"), rows=rows, marked=(False,))
    narrow, wide = (screen(terminal(columns, "-c", script)[1]) for columns in (80, 100))
    for lines in (narrow, wide):
        assert sum(line.split()[:1] == ["0.25"] for line in lines) == 1
    assert not any("Avg both" in line for line in narrow)
    assert any("Avg both" in line for line in wide)


LONG = tuple((f"{row / 100:g}", f"{row}.0", "1.0") for row in range(101))


@pytest.mark.parametrize("full", [False, True])
def test_a_long_table_is_shortened_in_a_terminal(full, terminal):
    """Of 101 alphas 40 are shown, the recommended one among them, and how many are not; with --full all."""
    script = TABLE.format(columns=("alpha", "Ref.", "Shift"), rows=LONG, marked=[row == 37 for row in range(101)])
    lines = screen(terminal(80, "-c", f"import mergekit_wise.cli.console as c\nc.out.full = {full}\n{script}")[1])
    shown = [line.split()[0] for line in lines if line.endswith(" 1.0")]
    assert len(shown) == (101 if full else 40)
    assert {"0", "0.37", "1"} <= set(shown)
    assert max(float(b) - float(a) for a, b in pairwise(shown)) <= 0.05 + 1e-9
    assert ("... and 61 more rows; --full prints all" in lines) == (not full)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.count(" 1.0\n") == 101


def test_the_option_that_shortens_nothing_may_follow_the_command(wise, pair):
    """`--full` is an option of `wise`, which takes effect for one command."""
    assert wise("inspect", pair[1], "--full").exit_code == 0
    assert console.out.full
    assert wise("inspect", pair[1]).exit_code == 0
    assert not console.out.full


def test_notes_that_say_the_same_are_one_in_a_terminal(terminal):
    """Notes of many data sets are one line; of many others, the rest is counted; in a pipe all are printed."""
    notes = (*(f"set {index}: has no names" for index in range(70)), *(f"note {index}" for index in range(20)))
    script = f"from mergekit_wise.cli.console import notes\nnotes({notes!r})"
    lines = [line for line in screen(terminal(80, "-c", script)[1]) if line]
    assert lines[0] == "note: set 0, set 1, set 2 and 67 more: has no names"
    assert lines[-1] == "note: 9 more notes; --full prints all"
    assert len(lines) == 13
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines() == [f"note: {note}" for note in notes]


@pytest.mark.parametrize("changed", [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}])
def test_the_best_of_a_column_is_marked_without_colours(changed):
    """In a pipe a star marks the best number, and the title says so, whatever is said of colours."""
    script = """
from mergekit_wise.cli.console import show
from mergekit_wise.report.table import Cell, Table
show(Table.of_cells(("a", "b"), [("0", Cell("1.0")), ("1", Cell("12.0", best=True))], [True, False]), "A title")
"""
    environment = {name: value for name, value in os.environ.items() if name not in LOUD} | changed
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    lines = ESCAPE.sub("", done.stdout).splitlines()
    assert [line.rstrip() for line in lines] == ["", "A title; * best of its column", "a     b", "0   1.0", "1 *12.0"][
        lines[0] != "" :
    ]
    assert ("\x1b" in done.stdout) == ("FORCE_COLOR" in changed)


def test_a_long_name_is_folded_and_its_numbers_are_not(terminal):
    """A long name is folded in a terminal while numbers stay whole; in a pipe the row is one line."""
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
    """A cell that is wider than the terminal is folded, and no word is lost."""
    cell = "fine-tuned where they differ, and zero-shot everywhere else"
    script = TABLE.format(columns=("Tensor", "Gets", "Bytes"), rows=(("h", cell, "12"),), marked=(False,))
    lines = screen(terminal(40, "-c", script)[1])
    assert max(map(len, lines)) <= 40
    assert f"h {cell} Tensor Bytes h 12" in " ".join(" ".join(lines[2:]).split())


def test_names_that_look_like_markup_are_printed_unchanged(wise, tmp_path):
    """Names that look like styles, links or emoji are printed unchanged."""
    name = "[red]odd[/] :smile: [link=x]"
    save_file({name: torch.ones(2)}, tmp_path / "[bold]a.st")
    for words in ((), ("--json",)):
        printed = wise("inspect", tmp_path / "[bold]a.st", *words).stdout
        assert name in printed
        assert "[bold]a.st" in printed


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_characters_that_the_terminal_cannot_show_are_escaped(encoding, terminal, tmp_path):
    """File names that are not text, and characters outside the terminal's encoding, are escaped and fail no run."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xce\xb1.st")
    save_file({"α": torch.ones(2)}, tmp_path / "plain.st")
    os.rename(tmp_path / "plain.st", path)
    code, written = terminal(80, *WISE, "inspect", path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (code, "Traceback" in written) == (0, False)
    assert ("α" if encoding == "utf-8" else "\\u03b1") in written
    code, written = terminal(80, *WISE, "merge", path, path, "-o", "out", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (code, "Traceback" in written) == (0, False)


@pytest.mark.parametrize("command", ["inspect", "diff", "dry run"])
def test_a_pipe_that_closes_early_is_not_an_error(command, tmp_path):
    """A closed pipe, as in `wise inspect FILE | head -1`, prints no error, and the first line comes through."""
    path = str(tmp_path / "many")
    save_file({f"a.{i}.{i % 7}.weight": torch.ones(1) for i in range(5000)}, path)
    words = {"inspect": (path,), "diff": (path, path), "dry run": (path, path, "--dry-run", "-o", path + "-out")}
    program = subprocess.Popen(
        [sys.executable, *WISE, command.replace("dry run", "merge"), *words[command]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout.readline().startswith(b"Tensor\t")
    program.stdout.close()
    errors = program.stderr.read()
    program.wait(60)
    said = {"diff": b"both files: names of no known model, such as a.0.0.weight\n"}
    assert errors in (b"", said.get(command, b"What each tensor would get\n"))


VIT = {f"visual.transformer.resblocks.{i}.mlp.c_fc.weight": (8, 2) for i in range(12)} | {"visual.proj": (2, 2)}


def write_vit(path, shift=0.0, **more):
    tensors = {name: torch.full(shape, 1.0 + shift * (index + 1)) for index, (name, shape) in enumerate(VIT.items())}
    save_file({**tensors, **more}, path)


@pytest.mark.parametrize("columns", [50, 80])
def test_repeated_layers_share_a_row_in_a_terminal(columns, terminal, tmp_path):
    """`inspect`, `diff` and a dry run have one row for a layer of all blocks, with its number, and names whole."""
    write_vit(tmp_path / "a")
    write_vit(tmp_path / "b", 0.01)
    folded = "visual.transformer.resblocks.{0..11}.mlp.c_fc.weight"
    for words in (("inspect", "a"), ("diff", "a", "b"), ("merge", "a", "b", "-o", "c", "--dry-run")):
        code, written = terminal(columns, *WISE, *words, NO_COLOR="1")
        lines = screen(written)
        assert code == 0
        assert max(len(line) for line in lines if not re.fullmatch("[0-9a-f]{64}", line)) <= columns
        start = next(index for index, line in enumerate(lines) if line.startswith("visual.transformer."))
        names = [line.split(" ")[0] for line in lines[start : start + 3]]
        assert folded in {"".join(names[:count]) for count in (1, 2, 3)}
        assert all(name.endswith(".") for name in names[:1] if name != folded)
        assert " x12 " in lines[start]
        assert ("0.01..0.12" if words[0] == "diff" else "") in lines[start]


def test_diff_in_a_terminal_says_first_what_the_files_are(terminal, tmp_path):
    """The architecture and the counts come before the table, whose largest change is first."""
    write_vit(tmp_path / "a", old=torch.ones(1))
    write_vit(tmp_path / "b", 0.01, **{"classification_head.weight": torch.ones(3, 2)})
    lines = screen(terminal(80, *WISE, "diff", "a", "b", NO_COLOR="1")[1])
    order = [
        "  b: open_clip: an unknown tower",
        "13 tensors moved.",
        "1 tensor is only in a.",
        "How far",
        "visual.proj",
    ]
    found = [next(i for i, line in enumerate(lines) if line.startswith(start)) for start in order]
    assert found == sorted(found)


@pytest.mark.parametrize("columns", [40, 80])
def test_lines_to_copy_are_not_wrapped(columns, terminal, tmp_path):
    """Options and commands are one logical line in every width, and everything else fits."""
    write_vit(tmp_path / "a", **{f"{letter}_long_name_of_a_module": torch.ones(1) for letter in "pqrs"})
    write_vit(tmp_path / "b", **{f"head.{part}.a.long.name.{part}": torch.ones(3, 2) for part in "xyz"})
    for words in (("merge", "a", "b", "-o", "c"), ("sweep", "a", "b", "--suite", "digits"), ("diff", "a", "b")):
        lines = ESCAPE.sub("", terminal(columns, *WISE, *words, NO_COLOR="1")[1]).splitlines()
        (copied,) = (line for line in lines if line.startswith(("    --", "    wise ")))
        assert "--keep 'ft:head.*'" in copied
        assert len(copied) > columns
        if words[0] != "diff":
            assert all(len(line) <= columns for line in lines if line != copied)
