"""What files and pipes get, which is written without rich."""

from itertools import product

import pytest

from mergekit_wise.cli.console import Stream

TEXTS = (
    "a word",
    "",
    "two\nlines\n",
    "[bold]no markup[/bold] :smile: 12 'quoted' http://example.org",
    "tabs\tare\tspaces  and trailing ones stay  ",
    "control \x1b[31m and \u202e are escaped",
    "wide 字 and é and 🙂",
    "    wise merge 'a file' -o " + 300 * "x",
    "long " * 200,
)


@pytest.mark.parametrize("name", ["out", "err"])
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("soft_wrap", [False, True])
def test_a_pipe_gets_what_rich_would_print(text, name, soft_wrap, capsys, monkeypatch):
    """A text has the same characters whether it is written as it is or drawn by rich, which no style was asked of."""
    printed = []
    for forced in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", forced)
        Stream(stderr=name == "err").print(text, soft_wrap=soft_wrap)
        printed.append(getattr(capsys.readouterr(), name))
    assert printed[0] == printed[1] != ""


def test_styles_are_drawn_where_the_environment_asks_for_them(capsys, monkeypatch):
    """A message has colours in a pipe only if an environment variable forces them."""
    for variable, value in product(("FORCE_COLOR", "TTY_COMPATIBLE"), ("0", "1")):
        for each in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
            monkeypatch.delenv(each, raising=False)
        monkeypatch.setenv(variable, value)
        monkeypatch.setenv("TERM", "xterm-256color")
        Stream().print_message("text", "note: ", "yellow")
        printed = capsys.readouterr().out
        assert ("\x1b[" in printed) == (variable == "FORCE_COLOR" or value == "1")
        assert printed.endswith("text\n")
