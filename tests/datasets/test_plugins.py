"""Data sets of other packages: found by an entry point, imported late, and no danger to built-in ones."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import DistributionFinder, MetadataPathFinder

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.catalog import BUILT_IN, SUITES
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.plugins import GROUP, is_name, load_plugins
from mergekit_wise.errors import SuiteError

GOOD = """
import sys
import numpy as np
from PIL import Image
from mergekit_wise import Dataset, Entry

print("a package that prints")

def image(index):
    return Image.new("RGB", (8, 8), (index, 0, 0))

def find(root):
    labels = np.arange(6, dtype=np.int64) % 2
    return Dataset("wild-cats", "Wild cats", ("cat", "dog"), labels, image, location="made")

CATS = Entry("wild-cats", "Wild cats", find, (), 6, "")

def entries():
    there = Entry("wild-dogs", "Wild dogs", lambda root: None, ("dogs",), None, "Ask the dogs.")
    return [CATS, there]
"""


def install(site, package, source, *points):
    """Lay out what pip would: a module, and its distribution's metadata with entry points."""
    module = package.replace("-", "_")
    site.mkdir(exist_ok=True)
    (site / f"{module}.py").write_text(source)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join((f"[{GROUP}]", *(f"{n} = {module}:{o}" for n, o in points), "")))
    return site


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load what packages in a folder name, as the catalogue does, without touching the catalogue's own."""
    site = tmp_path / "site"

    def load():
        monkeypatch.syspath_prepend(str(site))
        context = DistributionFinder.Context(path=[str(site)])
        found = [point for each in MetadataPathFinder.find_distributions(context) for point in each.entry_points]
        return load_plugins({*BUILT_IN, *SUITES}, found)

    yield site, load
    for path in site.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_an_entry_point_gives_an_entry_a_list_or_a_function(loaded):
    """An entry, a list of entries, and a function that returns them are all understood."""
    site, load = loaded
    install(site, "cats-one", GOOD, ("one", "CATS"))
    install(site, "many-of-them", GOOD.replace("wild-", "tame-"), ("some", "entries"))
    install(site, "in-a-list", GOOD.replace("wild-", "old-") + "\nALL = [CATS]\n", ("list", "ALL"))
    found = load()
    assert set(found.entries) == {"wild-cats", "tame-cats", "tame-dogs", "old-cats"}
    assert found.failures == ()
    assert len(found.entries["wild-cats"].open(None)) == 6


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_does_not_exist\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit\n", "SystemExit"),
        ("X = 3\n", "gives int"),
        ("X = [3]\n", "gives int"),
        ("def X(needed): return []\n", "TypeError"),
        (GOOD.replace('"wild-cats"', '"digits"') + "X = CATS\n", "'digits' is the name of a built-in data set"),
        (
            GOOD.replace('"wild-cats"', '"imagenet-shifts"') + "X = CATS\n",
            "'imagenet-shifts' is the name of a built-in",
        ),
        (GOOD.replace('"wild-cats"', '"a,b"') + "X = CATS\n", "names a data set 'a,b'"),
        (GOOD + "X = [CATS, CATS]\n", "two of them are called 'wild-cats'"),
    ],
    ids=["import", "code", "exit", "number", "list of numbers", "function", "data set", "suite", "name", "twice"],
)
def test_a_broken_package_is_a_sentence_with_its_name(source, reason, loaded):
    """What is wrong with a package is said with its name, and other packages' data sets are there all the same."""
    site, load = loaded
    install(site, "broken-one", source, ("cats", "X"))
    install(site, "sound-one", GOOD.replace("wild-", "sound-"), ("cats", "CATS"))
    found = load()
    assert set(found.entries) == {"sound-cats"}
    (failure,) = found.failures
    assert failure.package == "broken-one"
    assert "package broken-one" in failure.sentence
    assert reason in failure.sentence
    assert "\n" not in failure.sentence


def test_a_name_of_two_packages_belongs_to_neither(loaded):
    """Which of two packages a name means is not guessed."""
    site, load = loaded
    install(site, "first-one", GOOD, ("a", "CATS"))
    install(site, "second-one", GOOD, ("b", "CATS"))
    found = load()
    assert not found.entries
    (failure,) = found.failures
    assert re.search("first-one.*second-one", failure.sentence)
    assert failure.names == ("wild-cats",)


def made(**changes):
    """A data set with something wrong."""
    known = {"name": "x", "labels": np.array([0, 1]), "classnames": ("a", "b")} | changes
    return Dataset(title="X", image=lambda index: None, **known)


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        (lambda root: 1 / 0, "ZeroDivisionError"),
        (lambda root: sys.exit("no"), "SystemExit: no"),
        (lambda root: "nothing", "found str"),
        (lambda root: made(name="imagenet"), "calls itself 'imagenet'"),
        (lambda root: made(labels=np.array([0, 2])), "labels from 0 to 2"),
        (lambda root: made(labels=[0, 1]), "int64"),
        (lambda root: made(labels=np.array([], np.int64)), "int64"),
    ],
    ids=["error", "exit", "type", "name", "range", "list", "empty"],
)
def test_a_data_set_that_is_none_is_refused(opened, reason):
    """What a package opens is checked before anything is measured on it, and the error names the package."""

    class Point:
        name, value = "x", "module:X"

        class dist:
            name = "some-package"

        @staticmethod
        def load():
            return Entry("x", "X", opened, (), None, "")

    found = load_plugins((), [Point])
    with pytest.raises(SuiteError, match="some-package") as error:
        found.entries["x"].open(None)
    assert reason in str(error.value)


def test_names_are_words():
    """A data set of a package can be mistaken for no path, no list and no file."""
    assert all(map(is_name, ("cats", "cats-v2.1", "7_b")))
    assert not any(map(is_name, ("", "a/b", "a,b", "a:b", "a b", "a.toml", "-a", ".a", "ä")))


# In processes of their own, as users run them.


def wise(site, *words, cwd, **asked):
    environment = {**os.environ, **asked, "PYTHONPATH": os.pathsep.join((str(site), os.environ.get("PYTHONPATH", "")))}
    environment.pop("WISE_DATA", None)
    code = "import sys; from mergekit_wise.__main__ import main; sys.argv[0] = 'wise'; main()"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


@pytest.fixture
def site(tmp_path):
    """A sound package and a broken one, whose module leaves a trace when it is imported."""
    trace = f"open({str(tmp_path / 'imported')!r}, 'a').write('x')\n"
    site = install(tmp_path / "site", "cat-pictures", trace + GOOD, ("cats", "entries"))
    return install(site, "broken-pictures", "raise RuntimeError('no licence')", ("broken-cats", "X"))


def test_the_command_lists_data_sets_of_packages(site, tmp_path):
    """``wise suites`` lists them beside the built-in ones, and says which package is broken."""
    done = wise(site, "suites", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    by_name = {each["name"]: each for each in found["data_sets"]}
    assert by_name["wild-cats"]["images"] == 6
    assert by_name["wild-dogs"]["hint"] == "Ask the dogs."
    assert {"imagenet", "digits"} <= set(by_name)
    assert len(found["notes"]) == 1
    assert "package broken-pictures" in found["notes"][0]
    assert "no licence" in found["notes"][0]


def test_completion_and_help_import_no_package(site, tmp_path):
    """A shell completes the names of entry points; what a package imports, prints or waits for is not its business."""
    asked = {"_WISE_COMPLETE": "complete_bash", "COMP_WORDS": "wise eval x --suite ", "COMP_CWORD": "4"}
    completed = wise(site, cwd=tmp_path, **asked)
    assert {"cats", "broken-cats", "digits"} <= set(completed.stdout.split())
    assert completed.stderr == ""
    assert wise(site, "eval", "--help", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "imported").exists()


def test_a_broken_package_is_refused_where_it_is_asked_for(site, tmp_path):
    """The broken package's data set is refused by the package's name; another one is there, and the fault is noted."""
    asked = wise(site, "suites", "broken-cats", cwd=tmp_path)
    assert asked.returncode == 1
    assert "broken-pictures" in asked.stderr
    assert "no licence" in asked.stderr
    other = wise(site, "suites", "wild-cats", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert "wild-cats" in other.stdout
    unknown = wise(site, "suites", "wild-cat", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "'wild-cats'" in unknown.stderr
    assert "broken-pictures" in unknown.stderr


def test_packages_are_imported_only_for_names_that_are_not_built_in(site, tmp_path):
    """Neither help nor a built-in name nor a path imports a package of data sets; a name of its own does."""
    (tmp_path / "images").mkdir()
    for words in (("suites", "--help"), ("eval", "--help"), ("suites", "digits"), ("suites", "./images")):
        wise(site, *words, cwd=tmp_path)
        assert not (tmp_path / "imported").exists(), words
    assert wise(site, "suites", "wild-cats", cwd=tmp_path).returncode == 0
    assert (tmp_path / "imported").exists()


def test_an_own_table_comes_before_a_package(site, tmp_path):
    """A table of a suite's file is what the file says, even if a package has a data set of this name."""
    for kind in ("cat", "dog"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "mine" / kind / "1.png")
    (tmp_path / "own.toml").write_text('shifts = ["wild-cats"]\n[data.wild-cats]\nroot = "mine"\n')
    done = wise(site, "suites", "own.toml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["data_sets"]
    assert found["images"] == 2
