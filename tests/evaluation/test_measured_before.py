"""Results in the file are found again without building a model, and mistakes are reported before one is built."""

import json
import subprocess
import sys

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.rules import rules
from mergekit_wise.api.sweep import sweep
from mergekit_wise.errors import ModelError
from mergekit_wise.models.open_clip_configs import complete_preprocessing
from tests.small_models import clip_pair, noise

PROBE = """
import json, sys
from mergekit_wise.cli.app import main
for words in json.loads(sys.stdin.read()):
    sys.argv, code = ["wise", *words], 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    loaded = [name for name in ("torch", "open_clip", "timm", "torchvision") if name in sys.modules]
    print(json.dumps([code, loaded]), file=sys.stderr)
"""


def ran(commands):
    """Run commands one after the other in a process: the exit code of each, with the libraries loaded by then."""
    given = json.dumps([[str(word) for word in words] for words in commands])
    done = subprocess.run([sys.executable, "-c", PROBE], input=given, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    return [json.loads(line) for line in lines if line.startswith("[")], done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two pairs, with a head and with both encoders, the file of a head, and images."""
    home = noise(tmp_path_factory.mktemp("home"))
    for name in ("own", "zs"):
        (home / name).mkdir()
    clip_pair(home / "own", head=True)
    clip_pair(home / "zs")
    rng = np.random.default_rng(0)
    np.savez(home / "head.npz", coef_=rng.standard_normal((3, 16)), intercept_=np.zeros(3))
    return home


def test_a_second_run_imports_no_torch_and_writes_nothing(home):
    """Every command that measures finds its results by what identifies them, which needs headers and NumPy alone."""
    suite = {"suite": str(home / "shift"), "reference": str(home / "ref"), "workers": 0}
    own, both = [[home / name / f"{side}.safetensors" for side in ("zs", "ft")] for name in ("own", "zs")]
    (home / "score.py").write_text('print(\'{"correct": 3, "total": 4}\')')
    command = f"{sys.executable} {home / 'score.py'} {{file}}"
    first = [
        (evaluate, own[1:], suite),
        (evaluate, both[1:], suite),
        (evaluate, both[1:], {**suite, "head": home / "head.npz"}),
        (sweep, own, {**suite, "alphas": "0,0.5,1", "analyze": True, "output_ensemble": True}),
        (sweep, both, {**suite, "alphas": "0,1"}),
        (sweep, own, {"alphas": "0,1", "command": command}),
        (rules, own, suite),
    ]
    again = []
    for number, (measure, models, options) in enumerate(first):
        results = home / f"{number}.jsonl"
        assert measure(*models, results=results, **options).added
        flags = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        words = [flag if value is True else f"{flag}={value}" for flag, value in flags.items()]
        name = {"evaluate": "eval"}.get(measure.__name__, measure.__name__)
        again.append([name, *models, *words, f"--results={results}"])
    before = {path: path.read_bytes() for path in home.glob("*.jsonl")}
    found, errors = ran(again)
    assert found == [[0, []]] * len(first), errors
    assert {path: path.read_bytes() for path in home.glob("*.jsonl")} == before


def test_mistakes_are_told_before_torch_is_imported(home):
    """Data, outputs and models that are missing, and classes that do not fit, cost no import of seconds."""
    model, pair = home / "own" / "ft.safetensors", [home / "own" / "zs.safetensors", home / "own" / "ft.safetensors"]
    (home / "two" / "ant").mkdir(parents=True)
    (home / "two" / "ant" / "0.png").write_bytes((home / "ref" / "ant" / "0.png").read_bytes())
    wrong = [
        ["eval", home / "none.safetensors", f"--suite={home / 'ref'}"],
        ["eval", model, f"--suite={home / 'none'}"],
        ["eval", model, "--suite=imagenet", f"--data={home / 'none'}"],
        ["eval", model, f"--suite={home / 'two'}"],
        ["eval", model, f"--suite={home / 'ref'}", f"--results={home / 'none' / 'r.jsonl'}"],
        ["eval", model, f"--suite={home / 'ref'}", "--model=ViT-B-322"],
        ["sweep", *pair, f"--suite={home / 'none'}"],
        ["sweep", *pair, f"--suite={home / 'ref'}", f"-o={home / 'none' / 'o.safetensors'}"],
        ["sweep", *pair, "--suite=digits", "--select-on=nothing"],
        ["rules", *pair, f"--suite={home / 'none'}"],
    ]
    found, errors = ran(wrong)
    assert [loaded for _, loaded in found] == [[]] * len(wrong), errors
    assert all(code in (1, 2) for code, _ in found), errors


def test_a_model_that_does_not_fit_is_told_before_weights_are_hashed(home):
    """Where nothing can be reused, the module is built before the time for fingerprints is spent."""
    tasks = []
    with pytest.raises(ModelError, match="does not fit the architecture"):
        evaluate(
            home / "own" / "ft.safetensors",
            model="ViT-B-32",
            suite=str(home / "ref"),
            progress=lambda task, *_: tasks.append(task),
        )
    assert "hashing weights" not in tasks


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mean": 0.5, "std": [0.1, 0.2, 0.3], "interpolation": "bilinear"},
        {"size": 999, "resize_mode": "longest", "fill_color": 7, "mode": None, "unknown": 3},
    ],
)
def test_preprocessing_is_completed_as_open_clip_does(given):
    """The defaults that are known without open_clip are those of the installed one, and records hold them."""
    wanted = {**merge_preprocess_dict(PreprocessCfg(), given), "size": 32}
    assert complete_preprocessing(given, 32) == wanted
    assert json.dumps(complete_preprocessing(given, 32)) == json.dumps(wanted)
