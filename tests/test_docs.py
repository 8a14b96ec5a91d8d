"""What the documentation shows is what happens.

The blocks of a page are taken in its order, in a folder where the demo has run and where a reader's images are:

- ``console``: what stands behind ``$`` is run; lines below it are among what it prints, whatever the numbers are.
- ``python``: is run.
- ``toml``: a file, named by its first line, which is there before anything is run.
- ``sh``: is not run, as it needs GPUs, a network, ImageNet, another checkpoint or an environment of its own. Its
  commands are parsed, so that all that they ask for exists.
- ``bash``, ``yaml``: are not run. They are for schedulers, and the README's, which `tests/test_readme.py` runs.
"""

import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup

import mergekit_wise
from mergekit_wise import __version__
from mergekit_wise.analysis import BASELINES, IMAGENET_BASELINES, Baseline
from mergekit_wise.cli.app import app
from mergekit_wise.config import current_names, faults
from mergekit_wise.datasets.catalog import ENTRIES, SUITES
from mergekit_wise.datasets.custom import KEYS, PLACE_KEYS
from mergekit_wise.datasets.suite_file import KEYS as SUITE_KEYS
from mergekit_wise.option_types import declared_options
from mergekit_wise.options import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WISE = typer.main.get_command(app)
RUN = ("console", "python")
KINDS = (*RUN, "toml", "sh", "bash", "yaml", "{toctree}", "{eval-rst}")
# Of torchrun, of Slurm, of the benchmarks, of the fuzzer, of open_clip, of Docker and of uvx.
OTHERS = {
    *("--nnodes", "--node-rank", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--master-addr", "--master-port"),
    *("--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--signal", "--requeue"),
    *("--nproc-per-node", "--folder", "--again", "--cases", "--help", "--force-image-size"),
    *("--from", "--gpus", "--rm", "--shm-size", "--user"),
}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block, with every command on one line."""
    text = page.read_text(encoding="utf-8").replace("\\\n", "")
    return re.findall(r"^```(\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shown(block: str) -> list[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that are shown below it."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not parts[0].strip(), f"begins with no command: {block}"
    return [(command, lines) for command, *lines in (part.splitlines() for part in parts[1:])]


def plain(text: str) -> str:
    """A line with its numbers masked, whether the best of a column or not, and its spaces collapsed."""
    return " ".join(re.sub(r"(?<!\S)\*(?=\d)|\d[\d.,]*", lambda found: found[0].strip("*") and "#", text).split())


def flowers() -> str:
    """The snippet that writes the small data set of flowers, of the page on fine-tuning."""
    found = blocks(ROOT / "docs" / "finetune.md")
    return next(text for kind, text in found if kind == "python" and "flowers.txt" in text)


@pytest.fixture
def folder(demo_home, tmp_path, monkeypatch):
    """A working folder with the demo's outputs, so that nothing is measured again."""
    shutil.copytree(demo_home / "wise-demo", tmp_path / "wise-demo")
    shutil.copy(tmp_path / "wise-demo" / "results.jsonl", tmp_path)
    shutil.copytree(tmp_path / "wise-demo" / "results.answers", tmp_path / "results.answers")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(kind in RUN for kind, _ in blocks(page))], ids=lambda page: page.name
)
def test_a_page_does_what_it_shows(page, folder, wise):
    """The commands of a page succeed and print the lines shown, and its Python snippets run.

    A page that names flowers writes them, or links to the page whose snippet does, which is run first.
    """
    if "](finetune.md)" in page.read_text(encoding="utf-8") and page.name != "finetune.md":
        exec(flowers(), {"__name__": "__main__"})
    for kind, text in blocks(page):
        if kind == "toml":
            (folder / text.split()[1]).write_text(text)
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, page.name, "exec"), {"__name__": "__main__"})
        for command, lines in shown(text) if kind == "console" else ():
            program, *words = shlex.split(command)
            assert program == "wise", command
            done = wise(*words)
            assert done.exit_code == 0, f"{command}\n{done.stderr}\n{done.exception}"
            printed = [plain(line) for line in (done.stdout + done.stderr).splitlines()]
            for line in lines:
                pattern = ".*".join(re.escape(plain(part)) for part in line.split("..."))
                assert any(re.fullmatch(pattern, found) for found in printed), f"{command} does not print: {line}"


def test_every_block_is_checked():
    """Every block is of a known kind, every TOML block names its file, and every fence is closed."""
    for page in PAGES:
        for kind, text in blocks(page):
            assert kind in KINDS, f"{page.name}: {kind}"
            assert kind != "toml" or re.match(r"# \S+\.toml\n", text), f"{page.name}: {text}"
        assert page.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks(page)), f"{page.name}: a stray fence"


def parsed(words: list[str]) -> None:
    """Raise an error unless the command line has known options and allowed values."""
    command, path = WISE, []
    while isinstance(command, TyperGroup):
        path.append(words.pop(0))
        assert path[-1] in command.commands, f"wise {' '.join(path)}"
        command = command.commands[path[-1]]
    command.read(command.make_context(path[-1], words, parent=WISE.make_context("wise", list(path))))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_could_be_parsed(page, tmp_path, monkeypatch):
    """Commands that are not run have known programs, options and values."""
    monkeypatch.chdir(tmp_path)
    lines = [line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines()]
    for program, *words in filter(None, (shlex.split(line, comments=True) for line in lines)):
        if program == "torchrun":
            parsed(words[words.index("mergekit_wise") + 1 :])
        elif program == "wise":
            parsed(words)
        else:
            assert program in ("docker", "make", "pip", "python", "uvx"), program
    inline = re.findall(r"`(wise [a-z].*?)`", page.read_text(encoding="utf-8").replace("\n", " "))
    for words in map(shlex.split, inline):
        assert words[1] in WISE.commands or words[1].startswith("-"), " ".join(words)


def every_option() -> set[str]:
    """The options of all commands, negated ones included."""
    commands, found = [WISE], set()
    for command in commands:  # grows as it goes
        commands += command.commands.values() if isinstance(command, TyperGroup) else []
        options = [param for param in command.params if param.param_type_name == "option"]
        found |= {name for param in options for name in (*param.opts, *param.secondary_opts)}
    return found


def test_every_option_that_is_named_exists():
    """Every option that a page names is an option of some command."""
    known, found = every_option() | OTHERS, set()
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8"))) - {"--no-"}
        assert named <= known, page.name
        found |= named
    assert {"--alpha", "--suite", "--data"} <= found


def test_every_file_that_is_named_exists():
    """Every file of the project that a page names exists."""
    found = []
    for page in PAGES:
        for name in re.findall(r"\b(?:docs|tests|mergekit_wise)/[\w/]+\.\w+", page.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
            found.append(name)
    assert found


def test_every_make_command_exists():
    """Every make target that a page names is in the Makefile."""
    named = {target for page in PAGES for target in re.findall(r"(?:`|^)make (\w+)", page.read_text(), re.MULTILINE)}
    there = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= named <= there


def test_links_lead_somewhere():
    """Every link to a file of the project has its target; building the site checks links to headings."""
    found = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
            found.append(link)
    assert any(not link.startswith("http") for link in found)


def test_the_site_is_built_without_a_warning(tmp_path):
    """Sphinx builds every page without a warning about links, contents or functions."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "html")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    built = {path.stem for path in (tmp_path / "html").glob("*.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= built


def test_the_page_on_configuration_is_about_options_that_exist():
    """Its files have no fault, its tables are those of commands, and its former names lead to the options it says."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    files = [block for kind, block in blocks(ROOT / "docs" / "configuration.md") if kind == "toml"]
    assert files
    assert [list(faults(tomllib.loads(file))) for file in files] == [[] for _ in files]
    tables = set(re.findall(r"(?:^|`)\[([a-z-]+)\]", text, re.MULTILINE))
    assert {"merge", "data-fetch"} <= tables <= set(COMMANDS)
    assert "`root` for `data`, and `data` for `train`" in text
    former = [current_names("finetune", {name: "x"}, has_training_set=False)[0] for name in ("root", "data")]
    assert former == [{"data": "x"}, {"train": "x"}]


def test_the_page_on_python_has_every_name_of_the_package():
    """docs/api.md documents every public function and class, and what it says of arguments is so."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\.\. auto(?:function|class):: ([\w.]+)$", text, re.MULTILINE))
    shown = {name.rpartition(".")[2] for name in documented}
    errors = {name for name, value in inspect.getmembers(mergekit_wise.errors) if inspect.isclass(value)}
    assert set(mergekit_wise.__all__) - {"__version__"} <= shown | errors
    for_terminals = {f"`--{flag.key}`" for _, flags in COMMANDS.values() for flag in flags}
    sentence = re.search(r"Options that only concern the terminal, (.*?), do not exist", text, re.DOTALL)
    assert sentence
    assert set(re.findall(r"`--[\w-]+`", sentence[1])) == for_terminals
    for command in ("merge", "sweep"):
        arguments = set(inspect.signature(getattr(mergekit_wise, command)).parameters)
        assert set(declared_options(COMMANDS[command][0])) <= arguments
        assert not arguments & {flag.name for flag in COMMANDS[command][1]}


def test_environment_variables_that_are_named_are_read():
    """Every variable of the tool's that a page names occurs in the package."""
    package = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mergekit_wise").rglob("*.py"))
    named = {name for page in PAGES for name in re.findall(r"\bWISE_[A-Z_]+", page.read_text(encoding="utf-8"))}
    assert "WISE_DATA" in named
    assert [name for name in sorted(named) if name not in package] == []


def test_the_command_reference_is_current():
    """The command reference is the generated one; `make docs` updates it."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.PAGE.read_text(encoding="utf-8") == reference.reference()
    assert "## wise data fetch" in reference.reference()


def test_the_documented_baselines_are_the_packages():
    """The baselines in docs/method.md have the coefficients that the package uses."""
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    drawn = {f"`{name}`, in plots": line for name, line in IMAGENET_BASELINES.items() if line is not BASELINES[name]}
    for name, line in ({f"`{name}`": line for name, line in BASELINES.items()} | drawn).items():
        if isinstance(line, Baseline):
            rows = {name: line}
        else:
            rows = {f"{name}, up to {100 * line.split:.2f} %": line.below, f"{name}, above": line.above}
        for first, piece in rows.items():
            assert f"| {first} | {piece.reference} | {piece.a:.4f} | {piece.b:.4f} |" in page


def test_files_that_name_a_version_name_this_one():
    """CITATION.cff and the first heading of CHANGELOG.md name the package's version and one date."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    first = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == __version__
    assert first[1] == f"{__version__} ({citation['date-released']})"


def test_the_pages_of_data_are_complete():
    """docs/data.md and docs/suites.md name every suite, every data set and every key of their TOML files."""
    page = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("data.md", "suites.md"))
    for name in (*SUITES, *ENTRIES, *KEYS, *PLACE_KEYS, *SUITE_KEYS[:-1]):
        documented = name.replace("digits-", "-") if name.startswith("digits-") and name != "digits-inverted" else name
        if name.startswith("imagenet-c-"):
            documented = "imagenet-c-gaussian_noise-1"
        assert re.search(rf"(`|^){re.escape(documented)}(`| = )", page, re.MULTILINE), name
