"""`soup`, and the soups of `merge`, `sweep` and `verify`: one derived checkpoint with all the safety of a merge."""

import json
import shlex

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mergekit_wise import soup
from mergekit_wise.api.merge import merge, preview
from mergekit_wise.api.verify import verify
from mergekit_wise.cli.app import app
from mergekit_wise.errors import CheckpointError, MismatchError, OutputError, UsageError
from mergekit_wise.models.pairing import open_pair
from mergekit_wise.option_types import SoupSource
from mergekit_wise.options import MergeOptions

FLOATS = ("layer.0.weight", "layer.1.weight", "layer.2.weight", "scale")


@pytest.fixture
def members(states, tmp_path):
    """Three fine-tunings of the zero-shot state, whose updates have a part in common, as files; one integer differs."""
    names = []
    for seed in (1, 2, 3):
        generator = torch.Generator().manual_seed(seed)
        state = {
            name: tensor + 0.1 * (1 + torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
            if name in FLOATS
            else tensor
            for name, tensor in states[0].items()
        }
        state["steps"] = torch.tensor(seed)
        names.append(tmp_path / f"ft{seed}.safetensors")
        save_file(state, names[-1])
    return names


@pytest.fixture
def zeroshot(pair):
    """The zero-shot checkpoint, which `torch.save` wrote."""
    return pair[0]


def mean_of(paths, name):
    """NumPy's mean in float64, rounded to the members' dtype."""
    tensors = [load_file(path)[name] for path in paths]
    return torch.as_tensor(np.mean([t.double().numpy() for t in tensors], axis=0)).to(tensors[0].dtype)


def provenance(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["mergekit_wise"])


def changed(path, output, **tensors):
    """A copy of a file with other tensors; None leaves one out."""
    state = {**load_file(path), **tensors}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, output)
    return output


def test_a_uniform_soup_holds_the_means_and_says_what_it_is(zeroshot, members, states, tmp_path):
    """Floats are means, equal tensors are copied, integers are the first member's; the file records all members."""
    report = soup(zeroshot, members, tmp_path / "soup.safetensors")
    found = load_file(report.output)
    assert all(torch.equal(found[name], mean_of(members, name)) for name in FLOATS)
    assert torch.equal(found["frozen"], states[0]["frozen"])
    assert found["steps"] == 1
    assert [note for note in report.notes if "steps" in note and "first" in note]
    origin = provenance(report.output)
    assert (origin["method"], origin["finetuned"]["how"]) == ("soup", "uniform")
    assert [each["name"] for each in origin["finetuned"]["members"]] == [path.name for path in members]
    assert str(tmp_path) not in json.dumps(origin)


def test_a_stock_soup_is_its_closed_form_for_each_tensor(zeroshot, members, states, tmp_path):
    """Each tensor has a share of its own, from the cosines of its own updates."""
    soup(zeroshot, members, tmp_path / "soup.safetensors", how="stock")
    found = load_file(tmp_path / "soup.safetensors")
    for name in FLOATS:
        t0 = states[0][name].double().numpy().ravel()
        every = [load_file(path)[name].double().numpy().ravel() for path in members]
        updates = [t - t0 for t in every]
        cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(updates) for b in updates[:i]]
        c = max(np.mean(cosines), 0)
        r = 3 * c / (1 + 2 * c)
        expected = torch.from_numpy(r * np.mean(every, axis=0) + (1 - r) * t0).reshape(found[name].shape)
        assert torch.equal(found[name], expected.to(found[name].dtype)), name


@pytest.mark.parametrize("how", ["uniform", "stock"])
@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_a_mixture_of_a_soup_is_that_of_its_file(how, alpha, zeroshot, members, tmp_path):
    """`merge` of a soup has the bytes of `soup` and then `merge`, and is verified with its members."""
    soup(zeroshot, members, tmp_path / "soup.safetensors", how=how)
    merge(zeroshot, tmp_path / "soup.safetensors", tmp_path / "two.safetensors", alpha=alpha)
    merge(zeroshot, output=tmp_path / "one.safetensors", soup=members, how=how, alpha=alpha)
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert verify(tmp_path / "one.safetensors", zeroshot=zeroshot, soup=members).difference is None
    if alpha == 1:
        assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "soup.safetensors").read_bytes()


@pytest.mark.parametrize("how", ["uniform", "stock"])
def test_verify_finds_a_byte_that_changed_in_the_soup_or_in_a_member(how, zeroshot, members, tmp_path):
    """A soup is verified in any order of its members, and neither with a changed byte nor with another member."""
    output = tmp_path / "soup.safetensors"
    soup(zeroshot, members, output, how=how)
    verdict = verify(output, zeroshot=zeroshot, soup=members[::-1])
    assert (verdict.difference, verdict.mixed) == (None, 5)
    content = bytearray(output.read_bytes())
    content[-1] ^= 1
    output.write_bytes(content)
    assert "differs" in verify(output, zeroshot=zeroshot, soup=members).difference
    content[-1] ^= 1
    output.write_bytes(content)
    state = load_file(members[1])
    save_file({**state, "layer.0.weight": state["layer.0.weight"] + 0.05}, members[1])
    assert "layer.0.weight differs" in verify(output, zeroshot=zeroshot, soup=members).difference


def test_verify_says_what_a_file_needs(zeroshot, members, tmp_path):
    """A soup needs its members, all of them; a merge of two files needs no members."""
    soup(zeroshot, members, tmp_path / "soup.safetensors")
    merge(zeroshot, members[0], tmp_path / "merged.safetensors")
    with pytest.raises(CheckpointError, match=r"ft1.safetensors,ft2.safetensors,ft3.safetensors"):
        verify(tmp_path / "soup.safetensors", zeroshot=zeroshot, finetuned=members[0])
    with pytest.raises(CheckpointError, match="3 members"):
        verify(tmp_path / "soup.safetensors", zeroshot=zeroshot, soup=members[:2])
    with pytest.raises(CheckpointError, match="no soup"):
        verify(tmp_path / "merged.safetensors", zeroshot=zeroshot, soup=members)
    with pytest.raises(UsageError, match="neither"):
        verify(tmp_path / "soup.safetensors", zeroshot=zeroshot)


def test_a_soup_in_memory_has_the_bytes_of_the_file(zeroshot, states, members, tmp_path):
    """Paths, state dicts and modules may be members; without an output, the result is a state dict."""
    soup(zeroshot, members, tmp_path / "soup.safetensors")
    expected = load_file(tmp_path / "soup.safetensors")
    found = soup(states[0], [load_file(members[0]), members[1], load_file(members[2])])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found.geometry.lengths == soup(zeroshot, members).geometry.lengths


def test_modules_may_be_members_even_where_they_are_lists_of_layers():
    """An nn.Sequential is one member and not several."""
    torch.manual_seed(0)
    start = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    second = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    second.load_state_dict({k: v + 0.01 if v.is_floating_point() else v + 2 for k, v in start.state_dict().items()})
    assert torch.equal(soup(start, second)["0.weight"], second[0].weight)
    found = soup(start, [start, second])
    assert torch.allclose(found["1.running_mean"], torch.full((3,), 0.005))
    assert found["1.num_batches_tracked"] == 0


@pytest.mark.parametrize("mmap", [True, False])
def test_every_output_and_option_of_merge_applies(mmap, zeroshot, members, tmp_path):
    """Shards, torch.save, --only, --keep and --dtype do for a soup what they do for a merge."""
    soup(zeroshot, members, tmp_path / "a.pt", only="layer.*", dtype="fp32", mmap=mmap)
    found = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(found) == {"layer.0.weight", "layer.1.weight", "layer.2.weight"}
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    every = [load_file(path)["layer.1.weight"].double() for path in members]
    assert torch.equal(found["layer.1.weight"], (sum(every) / 3).float())
    report = soup(zeroshot, members, tmp_path / "b.safetensors", shard_size="6KB", keep="zs:scale", mmap=mmap)
    assert report.output.name == "b.safetensors.index.json"
    assert verify(report.output, zeroshot=zeroshot, soup=members, mmap=mmap).difference is None


def test_members_are_matched_as_the_fine_tuned_side_of_a_pair(zeroshot, members, tmp_path):
    """Prefixes, other names and buffers that one member holds are bridged for each member by itself."""
    expected = soup(zeroshot, members)
    prefixed = tmp_path / "prefixed.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in load_file(members[1]).items()}, prefixed)
    other = tmp_path / "other.safetensors"
    save_file({name.replace("layer.", "block."): tensor for name, tensor in load_file(members[2]).items()}, other)
    found = soup(zeroshot, [members[0], prefixed, other], rename="ft:block=layer")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    with pytest.raises(UsageError, match="no tensor name"):
        soup(zeroshot, members, rename="ft:nothing=layer")


def test_a_prefix_of_the_zero_shot_side_and_of_some_members_is_bridged(states, members, tmp_path):
    """The members have one set of names, whichever of them come with a prefix."""
    start = {f"model.{name}": tensor for name, tensor in states[0].items()}
    first = {f"model.{name}": tensor for name, tensor in load_file(members[0]).items()}
    found = soup(start, [first, load_file(members[1]), first])
    plain = soup(states[0], [members[0], members[1], members[0]])
    assert sorted(found) == sorted(plain)
    assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())


def test_rows_of_heads_are_in_the_first_members_order(tmp_path):
    """A member whose head has the same classes in another order is averaged class by class, with stock, too."""
    torch.manual_seed(0)
    start = {"body.weight": torch.randn(8, 8), "classifier.weight": torch.randn(3, 8)}
    orders = {"zs": "cab", "one": "abc", "two": "bca"}
    by_class = {name: torch.randn(3, 8) * 0.1 + start["classifier.weight"] for name in ("one", "two")}
    by_class["zs"] = start["classifier.weight"]
    for name, order in orders.items():
        rows = torch.stack([by_class[name]["abc".index(letter)] for letter in order])
        body = start["body.weight"] + 0.01 * len(name)
        metadata = {"classnames": json.dumps([f"class {letter}" for letter in order])}
        save_file({"body.weight": body, "classifier.weight": rows}, tmp_path / f"{name}.safetensors", metadata)
    paths = [tmp_path / f"{name}.safetensors" for name in orders]
    mean = (by_class["one"].double() + by_class["two"].double()) / 2
    assert torch.equal(soup(paths[0], paths[1:])["classifier.weight"], mean.float())
    a, b = (by_class[name].double().ravel() - by_class["zs"].double().ravel() for name in ("one", "two"))
    c = max(float(a @ b / a.norm() / b.norm()), 0)
    r = 2 * c / (1 + c)
    stock = soup(paths[0], paths[1:], how="stock")["classifier.weight"]
    assert torch.equal(stock, (r * mean + (1 - r) * by_class["zs"].double()).float())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layer.1.weight": None}, "layer.1.weight"),
        ({"layer.0.weight": torch.zeros(64, 34)}, "layer.0.weight"),
        ({"extra": torch.zeros(2)}, "extra"),
    ],
)
def test_a_member_that_does_not_fit_is_the_error_of_a_pair(change, named, zeroshot, members, tmp_path):
    """A tensor that a member lacks, has in another shape or has alone is named with the member's file."""
    wrong = changed(members[1], tmp_path / "wrong.safetensors", **change)
    with pytest.raises(MismatchError) as error:
        soup(zeroshot, [members[0], wrong, members[2]], tmp_path / "soup.safetensors")
    assert "wrong.safetensors" in str(error.value)
    assert named in str(error.value)
    assert not (tmp_path / "soup.safetensors").exists()
    if named != "extra":
        soup(zeroshot, [members[0], wrong, members[2]], tmp_path / "soup.safetensors", keep=f"zs:{named}")


def test_members_of_dtypes_without_a_mean_are_refused(zeroshot, members, tmp_path):
    """Float8 beside float32 is no mean in torch either; the message gives the option that copies the tensor."""
    wrong = changed(members[1], tmp_path / "wrong.safetensors", scale=torch.tensor(1.0).to(torch.float8_e4m3fn))
    with pytest.raises(MismatchError, match="scale") as error:
        soup(zeroshot, [members[0], wrong])
    assert "wrong.safetensors" in str(error.value)
    soup(zeroshot, [members[0], wrong], keep="zs:scale")


@pytest.mark.parametrize("how", ["uniform", "stock"])
def test_infinities_and_nan_of_members_are_counted(how, zeroshot, members, tmp_path):
    """What is not finite in a member is not finite in the soup, and a note counts it, as in a merge."""
    weight = load_file(members[0])["layer.0.weight"]
    weight[0, 0], weight[1, 1] = float("nan"), float("inf")
    wrong = changed(members[0], tmp_path / "wrong.safetensors", **{"layer.0.weight": weight})
    report = soup(zeroshot, [wrong, members[1]], tmp_path / "soup.safetensors", how=how)
    assert any("layer.0.weight (2)" in note for note in report.notes)
    assert (~load_file(report.output)["layer.0.weight"].isfinite()).sum() == 2


def test_members_of_another_start_are_refused_everywhere_and_allowed_on_request(zeroshot, members, tmp_path, wise):
    """soup and merge refuse a stranger before anything is written, and name the option that they have."""
    stranger = changed(members[0], tmp_path / "other.safetensors", **{"layer.0.weight": torch.randn(64, 33)})
    output = tmp_path / "soup.safetensors"
    for words in (
        ["soup", zeroshot, members[0], stranger],
        ["merge", zeroshot, "--soup", f"{members[0]},{stranger}"],
    ):
        result = wise(*words, "-o", output)
        assert result.exit_code == 1
        assert "other.safetensors" in result.stderr
        assert "--allow-other-starts" in result.stderr
        assert not output.exists()
        assert wise(*words, "-o", output, "--allow-other-starts").exit_code == 0
        output.unlink()


def test_the_tensors_that_stock_cannot_anchor_are_said(zeroshot, members, states, tmp_path):
    """A tensor that the zero-shot model lacks is the plain mean, and a note names it; so it is with one member."""
    start = {name: tensor for name, tensor in states[0].items() if name != "layer.1.weight"}
    found = soup(start, members, how="stock", keep="ft:layer.1.weight")
    assert torch.equal(found["layer.1.weight"], mean_of(members, "layer.1.weight"))
    assert any("layer.1.weight" in note and "mean" in note for note in found.notes)
    alone = soup(zeroshot, members[:1], how="stock")
    assert any("one member" in note for note in alone.notes)
    assert torch.equal(alone["layer.0.weight"], load_file(members[0])["layer.0.weight"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"members": []}, "member"),
        ({"how": "greedy"}, "select_on"),
        ({"select_on": "digits"}, "select_on"),
        ({"limit": 3, "how": "stock"}, "limit"),
        ({"how": "best"}, "greedy"),
        ({"members": [["a"]]}, "members"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, named, zeroshot, members):
    """No members, greedy without images, and images without greedy are one sentence each."""
    with pytest.raises(UsageError, match=named):
        soup(zeroshot, **{"members": members, **arguments})


def test_an_output_that_is_a_member_is_refused(zeroshot, members):
    """No member is replaced by the soup."""
    with pytest.raises(OutputError, match="input"):
        soup(zeroshot, members, members[1])


def test_exactly_one_of_the_checkpoint_and_the_soup_is_given(zeroshot, members, wise, tmp_path):
    """Both, neither, and greedy without an evaluation are refused with what to do."""
    both = wise("merge", zeroshot, members[0], "--soup", members[1], "-o", tmp_path / "o")
    assert (both.exit_code, "both are given" in both.stderr) == (2, True)
    neither = wise("merge", zeroshot, "-o", tmp_path / "o")
    assert (neither.exit_code, "FINETUNED or --soup" in neither.stderr) == (2, True)
    greedy = wise("merge", zeroshot, "--soup", members[1], "--how", "greedy", "-o", tmp_path / "o")
    assert (greedy.exit_code, "wise soup" in greedy.stderr) == (2, True)


def test_options_hold_a_source_whichever_was_given(members):
    """`finetuned` is a soup after construction and after a replacement of any other option."""
    from dataclasses import replace

    options = MergeOptions("zs", soup="a/x.pt,b/y.pt", how="stock")
    assert isinstance(options.finetuned, SoupSource)
    assert (options.soup, options.finetuned.members, options.finetuned.how) == (("a/x.pt", "b/y.pt"),) * 2 + ("stock",)
    changed_alpha = replace(options, alpha=0.2)
    assert (changed_alpha.finetuned, changed_alpha.soup) == (options.finetuned, options.soup)
    assert replace(options, soup=["c"]).finetuned.members == ("c",)
    assert replace(options, how="uniform").finetuned.how == "uniform"
    given = MergeOptions("zs", SoupSource.of(["a", "b"], "stock"))
    assert (given.soup, given.how) == (("a", "b"), "stock")
    assert len(str(SoupSource.of(["é" * 200] * 300)).encode()) < 255


def test_wise_toml_may_hold_the_soup_or_what_replaces_it(zeroshot, members, tmp_path, wise, monkeypatch):
    """With `soup` in the file one word is ZEROSHOT; a typed FINETUNED or --soup overrides what the file gives."""
    monkeypatch.chdir(tmp_path)
    names = [path.name for path in members]
    (tmp_path / "wise.toml").write_text(f"soup = {json.dumps(names)}\n")
    assert wise("merge", zeroshot, "-o", "a.safetensors").exit_code == 0
    assert provenance("a.safetensors")["finetuned"]["how"] == "uniform"
    assert wise("merge", zeroshot, names[0], "-o", "b.safetensors").exit_code == 0
    assert provenance("b.safetensors")["finetuned"]["name"] == names[0]
    (tmp_path / "wise.toml").write_text(f'zeroshot = "{zeroshot.name}"\nfinetuned = "{names[0]}"\n')
    assert wise("merge", "--soup", ",".join(names[1:]), "-o", "c.safetensors").exit_code == 0
    assert [each["name"] for each in provenance("c.safetensors")["finetuned"]["members"]] == names[1:]


def test_a_preview_of_a_soup_writes_nothing(zeroshot, members, tmp_path):
    """The plan of a soup is known from headers."""
    found = preview(zeroshot, output=tmp_path / "o.safetensors", soup=members)
    assert {step.info.name for step in found.steps} == set(load_file(members[0]))
    assert not (tmp_path / "o.safetensors").exists()


def test_the_command_prints_the_angles_and_what_it_wrote(zeroshot, members, tmp_path, wise):
    """A row per member has its relative change and its angles; the same numbers are printed as JSON."""
    result = wise("soup", zeroshot, *members, "-o", tmp_path / "soup.safetensors", "--how", "stock")
    assert result.exit_code == 0
    assert all(path.name in result.stdout for path in members)
    assert "Wrote" in result.stdout
    found = json.loads(wise("soup", zeroshot, *members, "-o", tmp_path / "b.safetensors", "--json").stdout)
    a, b = found["geometry"]["angles"][0][1], found["geometry"]["angles"][1][0]
    assert a == b
    assert 0 < found["geometry"]["lengths"][0] < 0.5
    assert (tmp_path / "soup.safetensors").exists()


def test_members_with_the_same_file_name_are_told_apart(zeroshot, members, tmp_path):
    """Files of one name in several folders are named by their paths, and verified in their order."""
    paths = []
    for number, path in enumerate(members):
        (tmp_path / str(number)).mkdir()
        paths.append(path.rename(tmp_path / str(number) / "model.safetensors"))
    report = soup(zeroshot, paths, tmp_path / "soup.safetensors")
    assert report.geometry.names == tuple(map(str, paths))
    assert verify(report.output, zeroshot=zeroshot, soup=paths).difference is None
    assert verify(report.output, zeroshot=zeroshot, soup=paths[::-1]).difference is not None


def test_members_are_closed_and_released(zeroshot, members):
    """Every member's file is among those that are watched, and closed with the pair."""
    with open_pair(zeroshot, SoupSource.of(members)) as (_, second, _naming):
        assert {file.path for file in second.files} == set(members)
        assert second.soup.names == tuple(path.name for path in members)


def test_the_printed_line_can_be_copied(zeroshot, members, tmp_path):
    """The line of a merge of a soup quotes its members, leaves FINETUNED out, and gives the same options again."""
    from mergekit_wise.models.merge_command import merge_command

    awkward = [str(members[0]), "a b.safetensors"]
    line = merge_command(MergeOptions("zs.pt", output="o.safetensors", soup=awkward, how="stock", alpha=0.4))
    words = shlex.split(line)
    assert words[:3] == ["wise", "merge", "zs.pt"]
    assert words[words.index("--soup") + 1] == ",".join(awkward)
    assert words[words.index("--how") + 1] == "stock"
    assert CliRunner().invoke(app, [*words[1:], "--help"]).exit_code == 0
