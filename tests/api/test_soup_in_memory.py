"""Soups of modules and data in memory, against means by hand; what is said of them, and the lines that make them."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms

from mergekit_wise import interpolate_, merge, soup, sweep
from mergekit_wise.api.verify import verify
from mergekit_wise.errors import SuiteError, UsageError
from mergekit_wise.merging import read_origin
from mergekit_wise.models.merge_command import merge_command, recorded_command, verify_command
from mergekit_wise.models.source import open_source
from mergekit_wise.options import MergeOptions

TO_8 = transforms.Compose([transforms.Resize((8, 8)), transforms.ToTensor()])


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


def moved(module, seed, scale=0.05):
    """A copy whose parameters are moved at random."""
    module, generator = copy.deepcopy(module), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return module


def images(count=40):
    """Pairs of a random image and a label."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (count, 3, 9, 8), dtype=torch.uint8, generator=generator)
    to_image = transforms.ToPILImage()
    return [(to_image(each), int(each[0, 0, 0]) % 3) for each in pixels]


def averaged(modules):
    """A copy of the first module with the means of all, in float64 and rounded once."""
    states = [module.state_dict() for module in modules]
    module = copy.deepcopy(modules[0])
    mean = {name: (sum(s[name].double() for s in states) / len(states)).to(t.dtype) for name, t in states[0].items()}
    module.load_state_dict(mean)
    return module


@torch.no_grad()
def correct(module, data):
    """How many images a module classifies as labelled, one image at a time."""
    return sum(int(module(TO_8(image)[None])[0].argmax()) == label for image, label in data)


def test_greedy_takes_models_and_images_in_memory():
    """The members that it adds are those of a replay by hand, and neither module nor weights are changed."""
    start, data = network(), images()
    members = [moved(start, seed, 0.1) for seed in range(10, 15)]
    before = [copy.deepcopy(each.state_dict()) for each in (start, *members)]
    found = soup(start, members, how="greedy", select_on=data, transform=TO_8, workers=0)
    alone = [correct(member, data) for member in members]
    chosen, best = [], -1
    for number in sorted(range(5), key=lambda number: -alone[number]):
        with_it = correct(averaged([members[each] for each in (*chosen, number)]), data)
        if with_it >= best:
            chosen, best = [*chosen, number], with_it
    assert 1 < len(chosen) < 5
    wanted = averaged([members[each] for each in chosen]).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())
    for state, module in zip(before, (start, *members), strict=True):
        assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_greedy_names_its_own_option():
    """Two data sets in memory to choose on are refused with the name of the option that `soup` has."""
    start = network()
    with pytest.raises(SuiteError, match="`select_on`: expected one data set, found 2"):
        soup(start, [start], how="greedy", select_on={"x": images(2), "y": images(2)}, transform=TO_8, workers=0)


def test_a_module_among_the_members_is_called_where_the_start_is_a_file():
    """A sweep from a file to a soup of modules of one's own counts what the modules by hand do."""
    start, data = network(), images()
    save_file(start.state_dict(), "zs.safetensors")
    members = [moved(start, seed, 0.15) for seed in (1, 2)]
    found = sweep("zs.safetensors", soup=members, suite=data, transform=TO_8, alphas=[0, 1], workers=0)
    assert [each.correct for each in found.records] == [correct(start, data), correct(averaged(members), data)]
    assert found.merge_command.startswith("mergekit_wise.merge('zs.safetensors', soup=soup, alpha=")


def test_a_wider_dtype_is_that_of_the_mean():
    """Means of bfloat16 written in float32 are rounded once, to float32, at every alpha, and verified."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(50, 40, generator=generator).bfloat16()
    members = [(start + 0.1 * torch.randn(50, 40, generator=generator)).bfloat16() for _ in range(3)]
    mean = (sum(member.double() for member in members) / 3).float()
    for number, tensor in enumerate((start, *members)):
        save_file({"w": tensor}, f"{number}.safetensors")
    paths = [f"{number}.safetensors" for number in (1, 2, 3)]
    soup("0.safetensors", paths, "soup.safetensors", dtype="fp32")
    assert torch.equal(load_file("soup.safetensors")["w"], mean)
    assert verify("soup.safetensors", zeroshot="0.safetensors", soup=paths).difference is None
    mixture = merge("0.safetensors", "soup.safetensors", alpha=0.4, dtype="fp32")["w"]
    assert torch.equal(merge("0.safetensors", soup=paths, alpha=0.4, dtype="fp32")["w"], mixture)
    assert torch.equal(soup("0.safetensors", paths)["w"], mean.bfloat16())


def test_opposite_updates_are_said_to_give_nothing():
    """Where Model Stock takes nothing of the mean, a note names the tensors, in a merge and in a sweep."""
    start, data = network(), images(4)
    members = [copy.deepcopy(start), copy.deepcopy(start)]
    with torch.no_grad():
        members[0][4].weight += 0.01
        members[1][4].weight -= 0.01
    swept = sweep(start, soup=members, how="stock", suite=data, transform=TO_8, alphas=[0, 1], workers=0)
    for notes in (soup(start, members, how="stock").notes, swept.notes):
        (note,) = [note for note in notes if "point away from each other" in note]
        assert note.endswith("values: 4.weight")
    assert not any("point away" in note for note in soup(start, members).notes)


def test_batch_norm_statistics_that_all_members_share_are_not_said_to_be_mixed():
    """Fine-tuning with frozen statistics leaves nothing to recalibrate; statistics that differ are warned of."""
    start = network()
    members = [moved(start, seed) for seed in (1, 2)]
    assert not any("batch-norm" in note for note in soup(start, members).notes)
    members[1][1].running_var += 1
    assert any("batch-norm" in note for note in soup(start, members).notes)
    said = []
    interpolate_(copy.deepcopy(start), start, soup=members, note=said.append)
    assert any("batch-norm" in note for note in said)


def test_interpolating_sets_a_soup():
    """Without a fine-tuned model, `soup` is the fine-tuned side."""
    start = network()
    members = [moved(start, seed) for seed in (1, 2)]
    module = interpolate_(copy.deepcopy(start), start, soup=members, alpha=1)
    wanted = averaged(members).state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in module.state_dict().items())
    with pytest.raises(UsageError, match="soup"):
        interpolate_(module, start)


def test_the_line_is_one_of_python_wherever_a_model_is_in_memory():
    """Bases and Fisher information in memory are called as the arguments are; what has a name is written out."""
    module = network()
    assert merge_command(MergeOptions("a.pt", "b.pt", base=module)) == (
        "mergekit_wise.merge('a.pt', 'b.pt', base=base, alpha=0.5)"
    )
    assert "fisher=fisher" in merge_command(MergeOptions("a.pt", "b.pt", fisher=(module, module)))
    line = merge_command(MergeOptions(module, soup=["a.pt", "b.pt"]))
    assert line == "mergekit_wise.merge(zeroshot, soup=('a.pt', 'b.pt'), alpha=0.5)"


@pytest.mark.parametrize("as_soup", [True, False])
def test_the_recorded_lines_name_the_base_of_an_adapter(as_soup):
    """An adapter of another model than the zero-shot one, alone or in a soup, is made again only with --base."""
    start = nn.Sequential(nn.Linear(8, 8))
    save_file(start.state_dict(), "base.safetensors")
    save_file(moved(start, 1).state_dict(), "zs.safetensors")
    save_file(moved(start, 2).state_dict(), "full.safetensors")
    adapted = get_peft_model(copy.deepcopy(start), LoraConfig(target_modules=["0"], r=2, init_lora_weights=False))
    adapted.save_pretrained("adapter")
    sources = {"soup": ["full.safetensors", "adapter"]} if as_soup else {"finetuned": "adapter"}
    merge("zs.safetensors", output="out.safetensors", base="base.safetensors", **sources)
    origin = read_origin(open_source("out.safetensors"))
    for line in (recorded_command(origin, "again.safetensors"), verify_command(origin, "out.safetensors")):
        assert "--base base.safetensors" in line
    merge("zs.safetensors", output="plain.safetensors", **sources)
    assert "--base" not in recorded_command(read_origin(open_source("plain.safetensors")), "again.safetensors")
