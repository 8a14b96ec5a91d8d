"""Mixtures in a loop of one's own: training is the same with and without them, and they are those of `merge`."""

import open_clip
import pytest
import timm
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import load_file, save_file
from torch import nn

from mergekit_wise.api.merge import merge
from mergekit_wise.errors import MismatchError, OutputError, UsageError
from mergekit_wise.integrations.loop import WiseFT
from tests.integrations.networks import careless, images, network, same_bits


def trained(wise=None, wrap=lambda module: module, epochs=2, every_step=False):
    """A network after two epochs of two steps, with weights at each epoch's end, and the optimizer's state."""
    module, (inputs, labels), states = network(), images(), []
    model, optimizer = wrap(module), torch.optim.AdamW(module.parameters(), lr=0.01)
    if wise is not None:
        wise.begin(model)
    torch.manual_seed(3)
    step = 0
    for epoch in range(epochs):
        for batch in torch.randperm(len(inputs)).chunk(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
            step += 1
            if wise is not None and every_step:
                wise.after_step(model, step, epoch)
        states.append({name: value.clone() for name, value in module.state_dict().items()})
        if wise is not None:
            wise.after_epoch(model, epoch + 1, step)
    return states, optimizer.state_dict()["state"]


def loss_of(state):
    """The loss of a network with these weights, measured by hand."""
    module, (inputs, labels) = network(9).eval(), images(2)
    module.load_state_dict(state)
    with torch.no_grad():
        return nn.functional.cross_entropy(module(inputs), labels).item()


@pytest.mark.parametrize("wrap", [lambda module: module, nn.DataParallel], ids=["plain", "parallel"])
def test_training_is_the_same_and_both_curves_are_measured(wrap):
    """Weights and optimizer are bit by bit those without; each loss is that of `merge` of the start and the state."""
    logged = []
    wise = WiseFT(alphas=(0.3, 0.7), measure=careless, log_to=lambda values, step: logged.append((step, values)))
    plain, plain_optimizer = trained(wrap=wrap)
    states, optimizer = trained(wise, wrap)
    assert all(same_bits(first, second) for first, second in zip(plain, states, strict=True))
    assert all(same_bits(plain_optimizer[key], optimizer[key]) for key in optimizer)
    start = network().state_dict()
    wanted = [
        {"epoch": epoch, "step": 2 * epoch, "alpha": alpha, "metric": "loss", "value": value}
        for epoch, state in enumerate(states, 1)
        for alpha, value in [
            *((alpha, loss_of(merge(start, state, alpha=alpha))) for alpha in (0.3, 0.7)),
            (1.0, loss_of(state)),
        ]
    ]
    assert wise.history == wanted
    assert len({record["value"] for record in wise.history}) == 6
    names = ["wise/alpha-0.3/loss", "wise/alpha-0.7/loss", "wise/alpha-1/loss"]
    assert [(step, list(values)) for step, values in logged] == [(2, names), (4, names)]


def test_written_mixtures_are_those_of_merge(tmp_path, monkeypatch):
    """Each file holds what `merge` makes of the zero-shot file and the saved state; with `every`, after those steps."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixtures").mkdir()
    save_file(network(4).state_dict(), "zs.safetensors")
    save = "mixtures/epoch-{epoch}-alpha-{alpha}.safetensors"
    wise = WiseFT("zs.safetensors", alphas=(0.25, 0.5), save=save, rules={"keep": "ft:head.*"})
    states, _ = trained(wise)
    assert len(wise.written) == 4
    for epoch, state in enumerate(states, 1):
        for alpha in (0.25, 0.5):
            wanted = merge("zs.safetensors", state, alpha=alpha, keep="ft:head.*")
            assert same_bits(load_file(f"mixtures/epoch-{epoch}-alpha-{alpha}.safetensors"), wanted)
            assert torch.equal(wanted["head.bias"], state["head.bias"])
    by_step = WiseFT("zs.safetensors", save="mixtures/step-{step}.pt", every=3)
    trained(by_step, every_step=True)
    assert [path.name for path in by_step.written] == ["step-3.pt"]
    assert by_step.history == []


def test_a_model_that_is_trained_may_be_given_as_its_own_start():
    """The zero-shot model in memory is copied, so that training it later does not change it."""
    module = network()
    wise = WiseFT(module, measure=lambda each: float(each.head.bias[0]), metric="bias")
    wise.begin(module)
    with torch.no_grad():
        start = float(module.head.bias[0])
        module.head.bias += 1
    assert wise.after_epoch(module, 1) == pytest.approx(
        {"wise/alpha-0.5/bias": start + 0.5, "wise/alpha-1/bias": start + 1}
    )


def test_only_the_main_process_does_anything(monkeypatch):
    """The second process of a run measures nothing."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    wise = WiseFT(measure=careless)
    trained(wise)
    assert wise.history == []
    with pytest.raises(UsageError, match="one process"):
        WiseFT(suite="digits").begin(network())


def test_open_clips_loss_and_model(tmp_path):
    """A contrastive loop with open_clip's own loss: the tower that is measured is the mixture's, the model goes on."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
    model = open_clip.CLIP(16, vision, text)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    pixels, tokens = torch.randn(4, 3, 32, 32), torch.randint(1, 50, (4, 8))
    features = []
    wise = WiseFT(alphas=(0.4,), measure=lambda each: features.append(each.encode_image(pixels)) or 0.0)
    loss, optimizer = ClipLoss(), torch.optim.AdamW(model.parameters(), lr=1e-3)
    wise.begin(model)
    for epoch in range(2):
        model.train()
        optimizer.zero_grad()
        loss(*model(pixels, tokens)).backward()
        optimizer.step()
        wise.after_epoch(model, epoch + 1)
        assert model.training
    other = open_clip.CLIP(16, vision, text).eval()
    for alpha, found in zip((0.4, 1.0), features[2:], strict=True):
        other.load_state_dict(merge(start, model.state_dict(), alpha=alpha))
        with torch.no_grad():
            assert torch.equal(other.encode_image(pixels), found)


def test_a_suite_is_measured_by_evaluate():
    """The accuracies on a built-in data set, by the name of the data set and of the number."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit.r160_in1k", num_classes=10)
    options = {"model": "timm:test_vit.r160_in1k", "limit": 4, "workers": 0}
    wise = WiseFT(suite="digits-small", evaluation=options)
    wise.begin(model)
    found = wise.after_epoch(model, 1)
    assert found.keys() == {f"wise/alpha-{alpha}/digits-small/top-1" for alpha in ("0.5", "1")}
    assert all(0 <= value <= 1 for value in found.values())


def test_what_cannot_work_is_refused_before_training(tmp_path, monkeypatch):
    """Contradicting arguments, names, folders, models that do not fit, and runs that are resumed."""
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        ({}, "Nothing to do"),
        ({"measure": careless, "suite": "digits"}, "two ways to measure"),
        ({"measure": careless, "alphas": ()}, "`alphas` is empty"),
        ({"measure": careless, "every": 0}, "at least 1"),
        ({"save": "x.pt", "alphas": (0.1, 0.2)}, r"one name. Put \{alpha\}"),
        ({"save": "{run}-{alpha}.pt"}, "only {alpha}, {epoch} and {step}"),
    ):
        with pytest.raises(UsageError, match=message):
            WiseFT(**arguments)
    with pytest.raises(OutputError, match="does not exist. Create it"):
        WiseFT(save="nowhere/{alpha}.pt").begin(network())
    with pytest.raises(MismatchError, match="conv"):
        WiseFT({"conv.weight": torch.zeros(1)}, measure=careless).begin(network())
    with pytest.raises(UsageError, match="resumes at step 7"):
        WiseFT(measure=careless).begin(network(), step=7)
    with pytest.raises(UsageError, match="Call `begin`"):
        WiseFT(measure=careless).after_epoch(network(), 1)
    with pytest.raises(UsageError, match="Expected a number"):
        wise = WiseFT(measure=lambda module: None)
        wise.begin(module := network())
        wise.after_epoch(module, 1)
