"""`sweep`: all alphas in one pass, against merging and evaluating one by one, and against plain torch."""

import json
from dataclasses import replace
from html import escape

import numpy as np
import pytest
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.report import write_report as draw
from mergekit_wise.api.sweep import sweep
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.subsets import limited
from mergekit_wise.errors import OutputError, ResultsError, SuiteError, UsageError
from mergekit_wise.evaluation.variants import InterpolatedWeights
from mergekit_wise.merging import Rules
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.pairing import match
from mergekit_wise.models.towers import create_clip
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.results import read_analyses, read_choices, read_records

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
CONFIG = {
    "model_cfg": {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT},
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
SUITE = "digits-inverted,digits-noisy"
LIMIT = 60


def save(path, *, tower, head, dtype=torch.float32):
    torch.manual_seed(tower)
    visual = create_clip(CONFIG["model_cfg"]).visual
    tensors = {f"visual.{name}": tensor.to(dtype) for name, tensor in visual.state_dict().items()}
    torch.manual_seed(head)
    weight = torch.randn(10, 32)
    # Features of a random tower hardly differ; what they share is taken off, so that every class is predicted.
    with torch.no_grad():
        shared = torch.nn.functional.normalize(visual.eval()(torch.randn(64, 3, 32, 32)), dim=-1).mean(0)
    tensors["classification_head.weight"] = weight.to(dtype)
    tensors["classification_head.bias"] = (-weight @ shared).to(dtype)
    save_file(tensors, path, {"open_clip_config": json.dumps(CONFIG)})
    return path


@pytest.fixture(params=["end to end", "linear"])
def sides(request, tmp_path):
    """Two models that differ in all weights, or in the head alone."""
    second = 1 if request.param == "end to end" else 0
    return (
        save(tmp_path / "zs.safetensors", tower=0, head=0),
        save(tmp_path / "ft.safetensors", tower=second, head=1),
    )


def logits_of(path, dataset):
    """The logits of the plain module for all images at once."""
    checkpoint = open_checkpoint(path)
    model = open_model(checkpoint)
    model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    with torch.inference_mode():
        return model.module(pixels_of(model, dataset))


def pixels_of(model, dataset):
    """All images of a data set as the model receives them."""
    preprocess = Preprocess.of(model.preprocess)
    return torch.stack([preprocess.normalise(preprocess.pixels(dataset.image(i))) for i in range(len(dataset))])


def test_a_sweep_counts_what_merging_and_evaluating_does(sides, tmp_path):
    """Each alpha has the counts, fingerprint and key of its merged file, and the saved file has the same bytes."""
    alphas = (0.0, 0.3, 1.0)
    report = sweep(*sides, alphas=alphas, suite=SUITE, limit=LIMIT, save=str(tmp_path / "{alpha}.safetensors"))
    for alpha in alphas:
        merge(*sides, tmp_path / "one.safetensors", alpha=alpha)
        assert (tmp_path / f"{alpha:g}.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
        alone = evaluate(tmp_path / "one.safetensors", SUITE, limit=LIMIT).records
        swept = [record for record in report.records if record.alpha == alpha]
        for ours, theirs in zip(swept, alone, strict=True):
            assert (ours.correct, ours.top5, ours.total) == (theirs.correct, theirs.top5, theirs.total)
            assert ours.weights == theirs.weights
            assert ours.key == theirs.key
    assert len({record.correct for record in report.records}) > 1


def same_bytes(pair, name):
    """Whether both checkpoints hold a tensor with the same bytes."""
    return pair.zeroshot.read(name).tobytes() == pair.finetuned.read(name).tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_weights_in_memory_are_those_of_the_merged_file(dtype, tmp_path):
    """Installed weights are rounded to the file's dtype, whatever alpha was installed before."""
    paths = [save(tmp_path / f"{seed}", tower=seed, head=seed, dtype=dtype) for seed in (0, 1)]
    pair = match(*map(open_checkpoint, paths))
    model = open_model(pair.finetuned)
    interpolated, mixtures = InterpolatedWeights(pair), [Rules(alpha) for alpha in (0.7, 0.0, 0.3, 1.0)]
    for rules in mixtures:
        interpolated.install(model, rules)
        wanted = {name: interpolated.read(rules, name) for name in model.names}
        reference = open_model(pair.finetuned)
        reference.set_weights(wanted)
        state = reference.module.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in model.module.state_dict().items())
    differ = {name for name in model.names if not same_bytes(pair, name)}
    assert interpolated.varying(model, mixtures) == differ
    assert differ - set(model.head_names)
    assert interpolated.varying(model, mixtures[:1]) == set()


@pytest.mark.parametrize("tolerance", [None, 0.0])
def test_frozen_weights_in_memory_are_those_of_the_merged_file(tolerance, tmp_path):
    """A tower that was only rounded is installed as the merge with this tolerance writes it."""
    paths = [save(tmp_path / "zs", tower=0, head=0, dtype=torch.float16), save(tmp_path / "ft", tower=0, head=1)]
    pair = match(*map(open_checkpoint, paths))
    interpolated, model = InterpolatedWeights(pair), open_model(pair.finetuned)
    for alpha in (0.7, 0.0, 0.3, 1.0):
        interpolated.install(model, Rules(alpha, frozen_tolerance=tolerance))
        merge(*paths, tmp_path / "out", alpha=alpha, frozen_tolerance=tolerance)
        state = open_model(merged := open_checkpoint(tmp_path / "out"))
        state.set_weights({name: (merged.info(name), merged.read(name)) for name in model.names})
        wanted = state.module.state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.module.state_dict().items())


def images_seen(monkeypatch):
    """Collects the numbers of images that are given to the first convolution of a model at once."""
    calls, real = [], torch.nn.Conv2d.forward

    def forward(self, images):
        calls.extend([len(images)] if self.in_channels == 3 else [])
        return real(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    return calls


def test_an_equal_image_encoder_runs_once_for_all_alphas(tmp_path, monkeypatch):
    """If only the head differs, each image is encoded once for all alphas, which a note says."""
    sides = [save(tmp_path / f"{head}", tower=0, head=head) for head in (0, 1)]
    calls = images_seen(monkeypatch)
    report = sweep(*sides, alphas=(0, 0.25, 0.5, 0.75, 1), suite="digits-noisy", limit=LIMIT, batch_size=20)
    assert calls.count(20) == LIMIT // 20
    assert sum("in all 5 mixtures and are computed once" in note for note in report.notes) == 1


def test_frozen_lower_blocks_run_once_for_all_alphas(tmp_path, monkeypatch):
    """Blocks that both models share do, with records that equal those of the merged files."""
    zeroshot, other = (save(tmp_path / f"{seed}", tower=seed, head=seed) for seed in (0, 1))
    first, second = (load_file(path) for path in (zeroshot, other))
    upper = ("visual.transformer.resblocks.1.", "visual.ln_post.", "visual.proj", "classification_head.")
    mixed = {name: second[name] if name.startswith(upper) else tensor for name, tensor in first.items()}
    save_file(mixed, tmp_path / "upper.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    calls = images_seen(monkeypatch)
    pair = (zeroshot, tmp_path / "upper.safetensors")
    report = sweep(*pair, alphas=(0, 0.5, 1), suite=SUITE, limit=LIMIT, batch_size=LIMIT)
    assert calls.count(LIMIT) == len({record.dataset for record in report.records})
    assert sum("first 1 of 2 blocks are the same in all 3 mixtures" in note for note in report.notes) == 1
    merge(zeroshot, tmp_path / "upper.safetensors", tmp_path / "half.safetensors", alpha=0.5)
    alone = evaluate(tmp_path / "half.safetensors", SUITE, limit=LIMIT, batch_size=LIMIT).records
    swept = [record for record in report.records if record.alpha == 0.5]
    assert [(one.key, one.correct, one.top5) for one in swept] == [(one.key, one.correct, one.top5) for one in alone]


def test_output_space_ensembles_are_those_of_the_logits(sides):
    """Output-space ensembles follow their definition, and equal weight-space ones if only the head differs."""
    alphas = (0.0, 0.25, 0.5, 1.0)
    report = sweep(*sides, alphas=alphas, suite="digits-inverted", limit=LIMIT, output_ensemble=True)
    dataset = limited(open_suite("digits-inverted").shifts[0], LIMIT, 0)
    f, g = (logits_of(path, dataset) for path in sides)
    labels = torch.from_numpy(dataset.labels)
    (analysis,) = report.analyses
    for alpha in (0.25, 0.5):
        right = (((1 - alpha) * f + alpha * g).argmax(1) == labels).double().mean().item()
        assert analysis.values[f"output-space ensemble at {alpha:g}"] == pytest.approx(right)
        weights = next(r.value for r in report.records if r.alpha == alpha)
        if load_file(sides[0])["visual.proj"].equal(load_file(sides[1])["visual.proj"]):
            assert weights == pytest.approx(right)


def test_the_analysis_is_of_the_logits_and_is_kept(sides, tmp_path):
    """Prediction diversity follows its definition; a second sweep reuses it, and further alphas add to it."""
    results = tmp_path / "r.jsonl"

    def run(*alphas):
        return sweep(*sides, alphas=alphas, suite="digits-inverted", limit=LIMIT, analyze=True, results=results)

    report = run(0, 0.5, 1)
    dataset = limited(open_suite("digits-inverted").shifts[0], LIMIT, 0)
    f, g = ((logits_of(path, dataset).argmax(1).numpy() == dataset.labels) for path in sides)
    (analysis,) = report.analyses
    assert analysis.values["prediction diversity"] == pytest.approx((f != g).mean())
    assert analysis.images == LIMIT
    assert run(0, 0.5, 1).added == 0
    assert len(read_analyses(results)) == 1
    assert run(0, 0.4, 0.5, 1).added == 1
    assert (len(read_analyses(results)), len(read_records(results))) == (1, 4)
    assert replace(run(0, 0.5, 1).analyses[0]) == analysis


def test_the_alpha_can_be_chosen_on_a_held_out_set(sides):
    """A held-out set chooses alpha and counts in no average; one of the same images is warned about."""
    report = sweep(*sides, alphas=(0, 0.5, 1), suite="digits-inverted", select_on="digits-noisy", limit=LIMIT)
    assert {record.dataset for record in report.records} == {"digits-inverted"}
    assert "Noisy" in report.recommendation.reason
    assert report.choice.cross_fit is None
    assert "is made of the same images" in report.recommendation.warning
    other = sweep(*sides, alphas=(0, 0.5, 1), suite="digits-inverted", select_on="digits-printed", limit=LIMIT)
    assert not other.recommendation.warning
    inside = sweep(*sides, alphas=(0, 0.5, 1), suite=SUITE, select_on="digits-noisy", limit=LIMIT)
    assert inside.recommendation.alpha == report.recommendation.alpha
    assert inside.choice.cross_fit.how == "halves"


def test_a_set_of_the_suite_is_no_held_out_set_whatever_it_is_called(sides, tmp_path):
    """Alpha that is chosen on evaluated images is corrected for it, also where a table or a path names these."""
    for folder, colour in (("photos", 40), ("night", 10)):
        for number in range(10):
            (tmp_path / folder / str(number)).mkdir(parents=True)
            Image.new("RGB", (8, 8), (colour, number, 0)).save(tmp_path / folder / str(number) / f"{colour}.png")
    suite = tmp_path / "own.toml"
    suite.write_text('reference = "p"\n[data.p]\nroot = "photos"\n')
    for chosen_on, corrected in (("own.toml::p", True), ("photos", True), ("night", False)):
        report = sweep(*sides, alphas=(0, 0.5, 1), suite=str(suite), select_on=str(tmp_path / chosen_on))
        assert (report.choice.cross_fit is not None) is corrected, chosen_on


def teach(path, dataset):
    """Replace the head of a checkpoint by the least-squares classifier of a data set's images."""
    checkpoint = open_checkpoint(path)
    model = open_model(checkpoint)
    model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    with torch.inference_mode():
        features = model.module.encode(pixels_of(model, dataset))
    columns = torch.cat([features.clone(), torch.ones(len(dataset), 1)], dim=1)
    wanted = torch.nn.functional.one_hot(torch.from_numpy(dataset.labels).long(), 10).float()
    *weight, bias = torch.linalg.lstsq(columns, wanted).solution
    head = {"classification_head.weight": torch.stack(weight, 1), "classification_head.bias": bias.clone()}
    save_file({**load_file(path), **head}, path, {"open_clip_config": json.dumps(CONFIG)})


def test_refining_adds_alphas_around_the_best(tmp_path):
    """Refining evaluates alphas between the best one and its neighbours if these are significantly worse."""
    sides = [save(tmp_path / f"{head}.safetensors", tower=0, head=head) for head in (0, 1)]
    teach(sides[1], limited(open_suite("digits-inverted").shifts[0], 200, 0))
    start = (0.0, 0.25, 1.0)
    options = {"alphas": start, "suite": "digits-inverted", "limit": 200}
    plain = sweep(*sides, **options)
    assert max(plain.candidates, key=lambda candidate: candidate.shift_accuracy).alpha == 1.0
    save_to = str(tmp_path / "mixed-{alpha}.safetensors")
    report = sweep(*sides, **options, refine=True, save=save_to, results=tmp_path / "r.jsonl")
    alphas = [candidate.alpha for candidate in report.candidates]
    assert alphas == sorted(set(alphas))
    assert set(start) < set(alphas)
    assert all(0.25 < alpha < 1.0 for alpha in set(alphas) - set(start))
    assert 0.625 in alphas
    assert report.recommendation.alpha in alphas
    assert sorted(record.alpha for record in read_records(tmp_path / "r.jsonl")) == alphas
    assert report.added == len(report.records)
    assert {path.name for path in report.saved} == {f"mixed-{alpha:g}.safetensors" for alpha in alphas}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": (0, 0.5), "suite": "digits", "analyze": True}, "add alpha 1"),
        ({"alphas": (0.5,), "suite": "digits", "output_ensemble": True}, "add alpha 0 and 1"),
        ({}, "`suite`"),
        ({"suite": "digits", "prefer": "best"}, "no-regret"),
        ({"suite": "digits", "save": "x.safetensors"}, "{alpha}"),
        ({"suite": "digits", "margin": 1.0}, "`margin` is what `prefer` no-regret may lose"),
        ({"suite": "digits", "select_on": "digits-noisy", "prefer": "shifts"}, "`select_on` chooses"),
        ({"suite": "digits-noisy", "cross_fit": "leave-one-out"}, "at least two shifts"),
        ({"suite": "digits", "cross_fit": "leave-one-out", "prefer": "reference"}, "looks at none"),
        ({"suite": "digits", "alphas": (0.5,), "prefer": "ece"}, "compares mixtures"),
    ],
)
def test_invalid_options_are_refused(sides, options, message):
    """Invalid combinations of options are usage errors that name the option."""
    with pytest.raises(UsageError, match=message):
        sweep(*sides, **options)


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({"alphas": (0, 0.5), "prefer": "no-regret"}, "r.jsonl", "Add alpha 1"),
        ({"alphas": (0, 0.5)}, "r.answers", "would have this name"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_measured(sides, tmp_path, options, name, message):
    """No-regret without alpha 1, and a results file with the name of the folder beside it."""
    results = tmp_path / name
    with pytest.raises(ResultsError, match=message):
        sweep(*sides, suite=SUITE, reference="digits", limit=LIMIT, results=results, **options)
    assert not results.exists()


def test_the_set_to_choose_on_is_looked_for_first(sides, tmp_path, monkeypatch):
    """An unknown `select_on` is an error before any measurement; a set's name in a TOML file is known."""
    with pytest.raises(SuiteError, match="^`select_on` digits-nosy: .*Did you mean 'digits-noisy'"):
        sweep(*sides, suite=SUITE, select_on="digits-nosy", limit=LIMIT, results=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()
    for number in range(10):
        (tmp_path / "mine" / str(number)).mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(tmp_path / "mine" / str(number) / "x.png")
    (tmp_path / "own.toml").write_text('root = "mine"\n')
    monkeypatch.chdir(tmp_path.parent)
    chosen = sweep(*sides, alphas=(0, 1), suite=str(tmp_path / "own.toml"), select_on="own").recommendation
    assert "own" in chosen.reason


def timm_pair(folder, name):
    """A timm classifier and the same with another head, and how a sweep reads them."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    last = next(part for part, module in model.named_modules() if module is model.get_classifier())
    inside = {f"{last}.weight", f"{last}.bias"}
    other = {key: tensor + torch.randn_like(tensor) if key in inside else tensor for key, tensor in state.items()}
    save_file(state, folder / "zs.safetensors")
    save_file(other, folder / "ft.safetensors")
    return folder / "zs.safetensors", folder / "ft.safetensors"


@pytest.mark.parametrize(
    ("name", "limit"), [("test_vit", 16), ("test_convnext", 16), pytest.param("volo_d1_224", 2, marks=pytest.mark.slow)]
)
def test_a_timm_pair_that_differs_in_its_head_passes_the_tower_once(name, limit, tmp_path, monkeypatch):
    """However many alphas; predictions are those of timm, image for image. VOLO adds what a second head says."""
    zeroshot, finetuned = timm_pair(tmp_path, name)
    calls = images_seen(monkeypatch)
    options = {"suite": "digits-small", "limit": limit, "batch_size": limit, "workers": 0, "model": f"timm:{name}"}
    alphas = (0.0, 0.25, 0.5, 1.0)
    sweep(zeroshot, finetuned, alphas=alphas, per_sample=tmp_path / "p.jsonl", **options)
    assert calls.count(limit) == 1
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for alpha in alphas:
        merge(zeroshot, finetuned, tmp_path / "mixed.safetensors", alpha=alpha)
        evaluate(tmp_path / "mixed.safetensors", per_sample=tmp_path / "e.jsonl", **options)
        own = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
        assert [line["predicted"] for line in lines if line["alpha"] == alpha] == [line["predicted"] for line in own]


@pytest.fixture
def own(tmp_path):
    """Own data: photos of the ten digits, drawings of them whose classes are listed in another order, and a suite."""
    digits = open_suite("digits").reference
    for row in range(0, len(digits), 25):
        name = digits.classnames[digits.labels[row]]
        for folder, change in (("photos", ImageOps.grayscale), ("drawings", ImageOps.invert)):
            path = tmp_path / folder / name / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            change(digits.image(row)).save(path)
    order = sorted(digits.classnames, reverse=True)
    (tmp_path / "drawn.toml").write_text(
        f"root = 'drawings'\nclassnames = {order}\nclass_map = {{ {', '.join(f'{n} = {n!r}' for n in order)} }}\n"
    )
    (tmp_path / "own.toml").write_text("reference = 'photos'\nshifts = ['drawn.toml']\ntrain = 'photos'\n")
    return tmp_path


def test_own_data_can_be_the_reference(own):
    """A suite's file, and a path beside --suite, give the roles, the plot, the averages and no-regret."""
    sides = [save(own / f"{seed}", tower=seed, head=seed) for seed in (0, 1)]
    alphas, plot = (0.0, 0.5, 1.0), own / "plot.png"
    report = sweep(*sides, suite=own / "own.toml", alphas=alphas, prefer="no-regret", plot=plot)
    assert [(r.suite, r.dataset, r.role) for r in report.records[:2]] == [
        ("own", "photos", "reference"),
        ("own", "drawn", "shift"),
    ]
    assert plot.exists()
    assert report.recommendation.alpha in alphas
    assert [loss.column for loss in report.losses] == ["photos", "drawn", "average of both"]
    named = sweep(*sides, suite=[own / "drawn.toml"], reference=own / "photos", alphas=alphas)
    assert [(r.role, r.correct) for r in named.records] == [(r.role, r.correct) for r in report.records]
    # The drawings as a data set of their own have the folders' order, which is that of the photos.
    alone = sweep(*sides, suite=own / "drawings", alphas=alphas)
    assert [r.correct for r in alone.records] == [r.correct for r in report.records if r.role == "shift"]
    assert alone.losses[0].column == "drawings"
    assert len(alone.losses) == 1


def test_the_plot_needs_a_reference_before_anything_is_measured(own):
    """The message names the option that gives a reference."""
    sides = [save(own / f"{seed}", tower=seed, head=seed) for seed in (0, 1)]
    with pytest.raises(OutputError, match="has no reference; name one with `reference`"):
        sweep(*sides, suite=own / "drawings", plot=own / "plot.png")
    with pytest.raises(OutputError, match="photos has no shift"):
        sweep(*sides, reference=own / "photos", plot=own / "plot.png")


def test_choosing_on_several_data_sets_is_refused(own):
    """A suite is no held-out data set; one of its tables is."""
    sides = [save(own / f"{seed}", tower=seed, head=seed) for seed in (0, 1)]
    with pytest.raises(SuiteError, match=r"select.on.*own.toml: expected one data set, found 2: photos, drawn"):
        sweep(*sides, suite="digits", select_on=str(own / "own.toml"))


@pytest.mark.parametrize(
    "options",
    [{"prefer": "no-regret"}, {"select_on": "digits"}, {"prefer": "average"}],
    ids=lambda o: "".join(o.values()),
)
def test_the_page_recommends_what_the_sweep_recommends(options, tmp_path):
    """The choice is written with the results once, and the report draws it; by averages alone it would be another."""
    pair = [save(tmp_path / f"{name}.safetensors", tower=0, head=number) for number, name in enumerate(("zs", "ft"))]
    suite = open_suite("digits")
    for path, dataset in zip(pair, (suite.shifts[0], suite.reference), strict=True):
        teach(path, limited(dataset, 200, 0))
    results = tmp_path / "r.jsonl"
    for _ in range(2):
        report = sweep(*pair, alphas=(0, 0.5, 1), suite="digits", limit=200, results=results, **options)
    assert len(read_choices(results)) == 1
    if "average" not in options.values():
        assert report.recommendation.alpha == 1
    draw(results, output=tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"<b>α = {report.recommendation.alpha:g}</b> – {escape(report.recommendation.reason)}." in page
    assert "skipped" not in page
