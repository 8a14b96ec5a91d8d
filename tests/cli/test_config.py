"""`wise.toml`: its values count as if given on the command line, which overrides them; and mistakes are errors."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
import typer

from mergekit_wise.cli.app import app
from mergekit_wise.cli.command import Command
from mergekit_wise.config import keys
from mergekit_wise.options import COMMANDS, options_of

GROUP = typer.main.get_command(app)


def commands_of(group, *path):
    """Yield every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, *path, name)
        else:
            yield (*path, name), command


BY_WORDS = dict(commands_of(GROUP))
EVERYTHING = [(words, option.name) for words in BY_WORDS for option in options_of("-".join(words)).values()]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    return tmp_path


@pytest.fixture
def write(home):
    """Write wise.toml in the working folder."""
    return lambda text: (home / "wise.toml").write_text(text)


@pytest.fixture
def received(home, monkeypatch):
    """Run a command line up to the command's own function, and return the options that it was called with."""
    calls = []
    for command in BY_WORDS.values():
        record = lambda options, **flags: calls.append({**as_dictionary(options), **flags})  # noqa: E731
        monkeypatch.setattr(command, "function", record)

    def run(*words):
        calls.clear()
        with pytest.raises(SystemExit) as end:
            GROUP.main(args=[str(word) for word in words], prog_name="wise")
        assert end.value.code in (0, None), end.value.code
        return calls[0]

    return run


def as_dictionary(options):
    """The options by name, without those that only Python callers have."""
    return {name: value for name, value in asdict(options).items() if name not in ("progress", "note", "_")}


@pytest.fixture
def refused(received, capsys):
    """Run a wrong command line, and return its error message on one line."""

    def run(*words):
        with pytest.raises(AssertionError, match="^2"):
            received(*words)
        printed = capsys.readouterr()
        assert printed.out == ""
        return " ".join(printed.err.split())

    return run


def sample(option):
    """A value that an option takes, as TOML holds it."""
    if option.is_flag:
        return not option.default
    share = 1 in (option.option.maximum, option.option.below)
    if option.option.metavar == "NAME=TEXT":
        return ["zeroshot=CLIP", "finetuned=CLIP, my data"]
    word = option.option.choices[0] if option.option.choices else "0.5" if share else "2"
    return [word, word] if option.is_pair or option.is_repeated else word


def command_line(options, values):
    """A command line that gives these values by name, with arguments in their order."""
    words = []
    for name, value in values.items():
        option = options[name]
        each = [value] if option.is_pair else [[entry] for entry in value] if isinstance(value, list) else [[value]]
        if option.option.is_argument:
            words += [word for group in each for word in group]
        elif option.is_flag:
            words.append(f"--{'' if value else 'no-'}{option.key}")
        else:
            words += [word for group in each for word in (f"--{option.key}", *group)]
    return words


def required(options, but=None, beside=None):
    """Values without which a command cannot run, except for one, and for what that or another one stands in for."""
    replaced = {option.option.replaces for option in options.values()}
    left_out = {but, *(options[name].option.replaces for name in (but, beside) if name)}
    needed = {"lp_ft": True} if {but, beside} & {"lp_epochs", "lp_lr"} else {}
    return needed | {
        name: placeholder(option)
        for name, option in options.items()
        if (option.is_required or name in replaced) and name not in left_out
    }


def placeholder(option):
    """A value of an option that is required."""
    return option.option.choices[0] if option.option.choices else "x"


def test_every_command_reads_the_file():
    """Every command, in groups too, reads wise.toml and has declared options."""
    assert all(isinstance(command, Command) for command in BY_WORDS.values())
    assert {"-".join(words) for words in BY_WORDS} == set(COMMANDS)


@pytest.mark.parametrize(("words", "name"), EVERYTHING, ids=lambda value: value if isinstance(value, str) else None)
def test_every_option_of_every_command_may_be_in_the_file(words, name, write, received, capsys):
    """A value in the command's table or above all tables gives the same options as on the command line."""
    table, options = "-".join(words), options_of("-".join(words))
    option, value = options[name], sample(options[name])
    place = {**required(options, beside=name), name: value}
    expected = received(*words, *command_line(options, place))
    others = command_line(options, required(options, but=name))
    for key in (option.key, option.name):
        write(f"[{table}]\n{key} = {json.dumps(value)}\n")
        capsys.readouterr()
        assert received(*words, *others) == expected
        assert f"From wise.toml: {key} = " in capsys.readouterr().err
    if name not in ("zeroshot", "finetuned"):  # these are also the names of other commands' arguments
        takers = [other for other in COMMANDS if option.key in keys(other)]
        shared = {other for other in takers if options_of(other).get(name, option).kind == option.kind}
        write(f"{option.key} = {json.dumps(value)}\n")
        if shared == set(takers):
            assert received(*words, *others) == expected


def test_values_are_understood_as_on_the_command_line(write, received):
    """Numbers may be texts, a list may be its only entry, and ~ is the home folder."""
    write(
        '[merge]\nalpha = 1\nfisher-floor = "1e-3"\nmemory = 300\nkeep = "zs:a"\nonly = ["b*", "c"]\noutput = "~/o"\n'
    )
    given = received("merge", "zs", "ft")
    assert (given["alpha"], given["fisher_floor"], given["memory"]) == (1.0, 1e-3, "300")
    assert (given["keep"], given["only"]) == (("zs:a",), ("b*", "c"))
    assert Path(given["output"]).is_absolute()


def test_the_command_line_overrides_the_table_and_the_table_overrides_shared_keys(write, received):
    """The command line overrides the command's table, which overrides the keys above all tables."""
    write('suite = "shared"\nbatch-size = 1\n[sweep]\nsuite = "table"\n')
    assert (received("sweep", "a", "b")["suite"], received("sweep", "a", "b")["batch_size"]) == ("table", 1)
    assert received("sweep", "a", "b", "--suite", "command_line")["suite"] == "command_line"
    assert received("eval", "a")["suite"] == "shared"


def test_a_shared_list_of_one_is_a_value_to_commands_that_take_one(write, received, refused):
    """`model` is a list to compare and a name to sweep; a list of two names is an error of the latter alone."""
    write('model = ["ViT-B-32"]\n')
    assert received("compare", "a.jsonl")["model"] == ("ViT-B-32",)
    assert received("sweep", "a", "b")["model"] == "ViT-B-32"
    write('model = ["one", "other"]\n')
    assert received("compare", "a.jsonl")["model"] == ("one", "other")
    assert "model = [one, other]" in refused("sweep", "a", "b")


def test_shared_suites_are_those_that_a_report_shows(write, received):
    """Several names above all tables are one list to sweep, which measures on them, and to report and compare."""
    write('suite = ["digits", "numerals.toml"]\n')
    for words in (("sweep", "a", "b"), ("report", "r.jsonl"), ("compare", "r.jsonl")):
        assert received(*words)["suite"] == "digits,numerals.toml"


def test_an_environment_variable_overrides_the_file(write, received, monkeypatch):
    """An environment variable overrides the value in the file."""
    write('data = "/file"\n')
    assert str(received("suites")["data"]) == "/file"
    monkeypatch.setenv("WISE_DATA", "/environment")
    assert str(received("suites")["data"]) == "/environment"


def test_a_shared_key_is_ignored_by_commands_without_the_option(write, received, capsys):
    """Commands without the option of a shared key neither fail nor mention it."""
    write('suite = "imagenet-shifts"\n')
    received("diff", "a", "b")
    assert capsys.readouterr().err == ""


def test_names_and_numbers_may_be_arrays(write, received):
    """An array of suites means the suites with commas between them, and alphas may be an array of numbers."""
    write('[sweep]\nsuite = ["a", "b"]\nalphas = [0, 0.5, 1]\n')
    given = received("sweep", "zs", "ft")
    assert (given["suite"], given["alphas"]) == ("a,b", (0.0, 0.5, 1.0))


def test_the_root_folder_of_data_sets_is_no_training_data(write, received, refused):
    """A shared `data` is finetune's root folder, and the training data must still be named."""
    write('data = "/data"\n')
    given = received("finetune", "a", "-o", "b", "--train", "cars")
    assert (given["train"], str(given["data"])) == ("cars", "/data")
    assert "--train" in refused("finetune", "a", "-o", "b")


def test_former_names_of_options_are_still_understood(write, received, capsys):
    """`--data DATASET` and `--root` of finetune mean `--train` and `--data`, in a table too, and a note says so."""
    given = received("finetune", "a", "-o", "b", "--data", "cars", "--root", "/data")
    assert (given["train"], str(given["data"])) == ("cars", "/data")
    printed = capsys.readouterr().err
    assert "--train" in printed
    assert "--root" in printed
    write('data = "/all"\n[finetune]\ndata = "cars"\nfile = "zs"\n')
    given = received("finetune", "-o", "b")
    assert (given["checkpoint"], given["train"], str(given["data"])) == ("zs", "cars", "/all")
    assert "--train" in capsys.readouterr().err


def test_the_recipes_own_keys_are_allowed_in_its_table_only(write, received, capsys):
    """The recipe's own keys are allowed in the table [recipe], and in no other."""
    write('[recipe]\nfolder = "out"\n')
    received("recipe")
    assert capsys.readouterr().err == ""
    write('[sweep]\nfolder = "out"\n')
    with pytest.raises(AssertionError, match="^2"):
        received("recipe")
    assert "'folder'" in capsys.readouterr().err


def test_a_flag_of_the_file_can_be_switched_off(write, received):
    """`--no-FLAG` on the command line overrides the file, which may itself use the negated key."""
    write("[sweep]\njson = true\n[merge]\nno-mmap = true\n")
    assert received("sweep", "a", "b")["json"] is True
    assert received("sweep", "a", "b", "--no-json")["json"] is False
    assert received("merge", "a", "b", "-o", "c")["mmap"] is False
    assert received("merge", "a", "b", "-o", "c", "--mmap")["mmap"] is True
    assert received("merge", "a", "b", "-o", "c", "--no-dry-run")["dry_run"] is False


def test_sweep_needs_no_argument_if_the_file_names_both_checkpoints(write, received):
    """`wise sweep` runs without arguments if the file names both checkpoints."""
    write('zeroshot = "zs.pt"\nfinetuned = "ft.pt"\n[sweep]\nalphas = "0,0.5,1"\n')
    given = received("sweep")
    assert (given["zeroshot"], given["finetuned"], given["alphas"]) == ("zs.pt", "ft.pt", "0,0.5,1")


@pytest.mark.parametrize(("key", "expected"), [("zeroshot", ("file", "word")), ("finetuned", ("word", "file"))])
def test_a_single_argument_is_the_checkpoint_that_the_file_does_not_give(key, expected, write, received, capsys):
    """If the file gives one checkpoint, a single argument is the other one, and two arguments override it."""
    write(f'{key} = "file"\n')
    given = received("merge", "word", "-o", "out")
    assert (given["zeroshot"], given["finetuned"]) == expected
    assert capsys.readouterr().err == f"From wise.toml: {key} = file\n"
    both = received("merge", "one", "-o", "out", "two")
    assert (both["zeroshot"], both["finetuned"]) == ("one", "two")


def test_a_single_argument_is_refused_if_the_file_gives_both_checkpoints(write, refused):
    """If the file gives both checkpoints, a single argument is ambiguous and is refused."""
    write('zeroshot = "zs.pt"\nfinetuned = "ft.pt"\n')
    assert "ZEROSHOT and FINETUNED" in refused("diff", "other.pt")


def test_values_from_the_file_are_listed_once_on_stderr(write, received, capsys):
    """One line on stderr lists the values from the file that are used, without overridden ones and defaults."""
    write('suite = "digits"\ndevice = "cuda"\njson = true\n[merge]\nonly = ["a", "b"]\n')
    received("sweep", "a", "b", "--device", "cpu")
    assert capsys.readouterr() == ("", "From wise.toml: suite = digits, json = true\n")
    received("merge", "a", "b", "-o", "c")
    assert capsys.readouterr() == ("", "From wise.toml: device = cuda, only = [a, b]\n")


def test_only_the_first_of_several_processes_lists_them(write, received, capsys, monkeypatch):
    """Of several processes only the one of rank 0 lists the values from the file."""
    write('suite = "digits"\n')
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        received("eval", "a")
        assert capsys.readouterr().err.count("\n") == lines


def test_control_characters_of_the_file_do_not_reach_the_terminal(write, received, capsys):
    """Values from the file are listed without their control characters."""
    write('model = "\\u001b[31mred\\u009b"\n')
    received("eval", "a")
    assert "\x1b" not in (printed := capsys.readouterr().err)
    assert "\x9b" not in printed
    assert "red" in printed


@pytest.mark.parametrize("words", [("--no-config", "merge"), ("merge", "--no-config")])
def test_the_file_can_be_ignored(words, write, received, capsys):
    """With `--no-config`, before or after the command, even a broken file is not read."""
    write("[merge\nalpha = 0.1")
    assert received(*words, "a", "b", "-o", "c")["alpha"] == 0.5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [("--help",), ("merge", "--help"), ("sweep", "-h"), ("--version",)])
def test_a_broken_file_does_not_prevent_help(words, write, capsys):
    """Help and version are printed even if the file is broken."""
    write("=")
    with pytest.raises(SystemExit) as end:
        GROUP.main(args=list(words), prog_name="wise")
    assert end.value.code in (0, None)
    assert "wise" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("suit = 'digits'", "'suite'"),
        ("quux = 1", "'quux'"),
        ("[swep]\nsuite = 'digits'", "'[sweep]'"),
        ("[options]\nsuite = 'digits'", "[options]"),
        ("suite = {name = 'digits'}", "'[suites]'"),
        ("[merge]\nalphas = '0:1:0.1'", "'alpha'"),
        ("[merge]\nsuite = 'digits'", "[sweep]"),
        ("[merge]\nzzz = 1", "'zzz'"),
        ("[merge]\nno-mmap = 'yes'", "[merge] no-mmap = yes: expected true or false."),
        ("[finetune]\nlinear = 'no'", "[finetune] linear = no: expected true or false."),
        ("[merge]\nalpha = true", "[merge] alpha = true: expected a number."),
        ("[merge]\nalpha = [0.1]", "[merge] alpha = [0.1]: expected a number."),
        ("[merge]\nalpha = 2020-01-01", "[merge] alpha = 2020-01-01: expected a number."),
        ("[merge]\nfisher = 'a'", "[merge] fisher = a: expected a list of 2 values."),
        ("[merge]\nfisher = ['a', 'b', 'c']", "[merge] fisher = [a, b, c]: expected a list of 2 values."),
        ("[merge]\nonly = [['a']]", "[merge] only = [[a]]: expected a text or a list of texts."),
        ("[merge.only]\na = 1", "[merge] only = {'a': 1}: expected a text or a list of texts."),
        ("device = true", "device = true: expected a number or a text."),
        ("[sweep]\nbatch-size = false", "[sweep] batch-size = false: expected a whole number."),
        ("[merge]\nalpha = 'half'", "[merge] alpha = half: expected a number."),
        ("[merge]\nfisher-floor = -1", "[merge] fisher-floor = -1: expected at least 0."),
        ("[eval]\nprecision = 'fp8'", "[eval] precision = fp8: expected one of fp32, bf16, fp16, auto."),
        ("[merge", "wise.toml is not TOML: "),
        ("suite = 'a'\nsuite = 'b'", "wise.toml is not TOML: "),
        ("alpha = " + "9" * 5000, "wise.toml is not TOML: "),
        ("a = " + "[" * 100_000, "wise.toml is not TOML: "),
    ],
)
def test_a_mistake_is_found_before_any_work(text, message, write, refused):
    """A mistake in any table is an error with exit code 2, whichever command is run."""
    write(text)
    assert message in refused("merge", "a", "b", "-o", "c")


def test_all_mistakes_are_listed_at_once(write, refused):
    """One error lists all mistakes of the file."""
    write("suit = 1\n[merge]\nalhpa = 1\nno-mmap = 1\n")
    message = refused("diff", "a", "b")
    assert message.startswith("error: wise.toml ")
    for part in ("'suit'", "'alhpa'", "no-mmap = 1: expected true or false"):
        assert part in message


def test_a_file_that_cannot_be_read_is_an_error(home, refused):
    """A folder in place of wise.toml, and bytes that are not UTF-8, are errors that name the file."""
    (home / "wise.toml").mkdir()
    assert "Is a directory" in refused("diff", "a", "b")
    (home / "wise.toml").rmdir()
    (home / "wise.toml").write_bytes(b'suite = "\xff"')
    assert "utf-8" in refused("diff", "a", "b")


def test_a_byte_order_mark_is_ignored(home, received):
    """A byte-order mark at the start of the file is ignored."""
    (home / "wise.toml").write_bytes(b'\xef\xbb\xbfsuite = "x"\r\n')
    assert received("eval", "a")["suite"] == "x"


def test_a_wrong_value_on_the_command_line_is_shown(refused):
    """The message names the option, what was found and what was expected."""
    assert "--batch-size many: expected a whole number." in refused("eval", "a", "--batch-size", "many")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("merge",), ("ZEROSHOT", "FINETUNED", "--output", 'zeroshot = "..."', "[merge]", "wise init")),
        (("sweep", "zs.pt"), ("FINETUNED", 'finetuned = "..."')),
        (("eval",), ("CHECKPOINT", 'checkpoint = "..."')),
    ],
)
def test_a_missing_argument_is_reported_with_the_lines_of_the_file(words, parts, refused):
    """The error names the missing arguments and shows the lines of wise.toml that would give them."""
    message = refused(*words)
    assert all(part in message for part in parts)


def test_the_documented_file_works(write, received):
    """With the file that docs/configuration.md shows, `wise sweep` and `wise merge` run without arguments."""
    page = Path(__file__).parents[2] / "docs" / "configuration.md"
    shown = re.search(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)[1]
    write(shown)
    table = tomllib.loads(shown)
    assert received("sweep")["alphas"] == tuple(table["sweep"]["alphas"])
    assert received("merge")["alpha"] == table["merge"]["alpha"]


def test_a_real_merge_from_the_file_is_the_merge_from_the_command_line(write, wise, pair, home):
    """A merge with all options in the file has the bytes of the merge with them on the command line."""
    options = {"alpha": "0.25", "keep": "zs:layer.1*", "alpha-for": "layer.0*=0.75", "dtype": "fp32"}
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    assert wise("merge", *pair, "-o", "command_line", *words).exit_code == 0
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    write(f'zeroshot = "{pair[0]}"\nfinetuned = "{pair[1]}"\n[merge]\noutput = "filed"\n{table}')
    result = wise("merge")
    assert result.exit_code == 0
    assert result.stderr.startswith("From wise.toml: zeroshot = ")
    assert (home / "filed").read_bytes() == (home / "command_line").read_bytes()


def test_json_on_stdout_stays_json(write, wise, pair):
    """With --json stdout is valid JSON, because the values from the file are listed on stderr."""
    write(f'zeroshot = "{pair[0]}"\nfinetuned = "{pair[1]}"\njson = true\n')
    assert json.loads(wise("diff").stdout)["movements"]


def test_the_toml_parser_is_imported_only_if_there_is_a_file(home):
    """The TOML parser is imported neither for help nor where there is no file."""
    forget = "import sys; sys.modules.pop('tomllib', None)"  # which what measures coverage has loaded
    script = f"{forget}; from mergekit_wise.cli.app import main\ntry: main()\nfinally: print('tomllib' in sys.modules)"
    for words in (("--help",), ("merge", "--help"), ("inspect", "nothing")):
        done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "False", done.stderr
    (home / "wise.toml").write_text("")
    done = subprocess.run([sys.executable, "-c", script, "inspect", "nothing"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "True"
