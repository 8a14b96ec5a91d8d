"""Mixtures inside transformers' Trainer: training is the same, the numbers are logged, the files are those of merge."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPConfig, CLIPForImageClassification, Trainer, TrainerCallback, TrainingArguments

from mergekit_wise.api.merge import merge
from mergekit_wise.errors import UsageError
from mergekit_wise.integrations.transformers import WiseFTCallback
from tests.integrations.networks import same_bits

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZE = {"image_size": 16, "patch_size": 8}


class Reporter(TrainerCallback):
    """What TensorBoard and others get to see."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append((state.global_step, dict(logs)))


def clip():
    torch.manual_seed(0)
    config = CLIPConfig(vision_config={**VISION, **SIZE, "attention_dropout": 0.1}, num_labels=3)
    return CLIPForImageClassification(config)


def samples():
    generator = torch.Generator().manual_seed(1)
    return [{"pixel_values": torch.randn(3, 16, 16, generator=generator), "labels": n % 3} for n in range(8)]


def trainer(folder, *callbacks, model=None, **arguments):
    given = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-2, **arguments}
    settings = TrainingArguments(
        str(folder),
        use_cpu=True,
        report_to=[],
        save_strategy="epoch",
        disable_tqdm=True,
        logging_strategy="no",
        **given,
    )
    return Trainer(model or clip(), settings, train_dataset=samples(), callbacks=list(callbacks))


def bias(module):
    """A number that shows which weights are set, measured so that random numbers are drawn."""
    assert not module.training
    torch.rand(3)
    module(pixel_values=torch.randn(2, 3, 16, 16))
    return {"bias": float(module.classifier.bias.sum()), "norm": float(module.classifier.weight.norm())}


def test_training_is_the_same_and_mixtures_are_those_of_the_checkpoints(tmp_path):
    """Two epochs of two steps end in the same bits; each mixture is that of the start and the Trainer's checkpoint."""
    start = {name: value.clone() for name, value in clip().state_dict().items()}
    plain = trainer(tmp_path / "plain")
    plain.train()
    save = str(tmp_path / "epoch-{epoch}-{alpha}.safetensors")
    callback = WiseFTCallback(alphas=(0.25, 0.5), measure=bias, save=save)
    with_mixtures = trainer(tmp_path / "with", callback)
    with_mixtures.train()
    assert same_bits(plain.model.state_dict(), with_mixtures.model.state_dict())
    for epoch, step in ((1, 2), (2, 4)):
        saved = load_file(tmp_path / f"with/checkpoint-{step}/model.safetensors")
        assert same_bits(load_file(tmp_path / f"plain/checkpoint-{step}/model.safetensors"), saved)
        for alpha in (0.25, 0.5):
            wanted = merge(start, saved, alpha=alpha)
            assert same_bits(load_file(tmp_path / f"epoch-{epoch}-{alpha}.safetensors"), wanted)
            (found,) = (r for r in callback.history if (r["epoch"], r["alpha"], r["metric"]) == (epoch, alpha, "bias"))
            assert found == {**found, "step": step, "value": float(wanted["classifier.bias"].sum())}
        (own,) = (r for r in callback.history if (r["epoch"], r["alpha"], r["metric"]) == (epoch, 1.0, "bias"))
        assert own["value"] == float(saved["classifier.bias"].sum())


def test_numbers_are_in_the_log_history_and_reach_reporters_through_the_trainer(tmp_path):
    """Without the Trainer they are in its history alone; with it, other callbacks see them, too, at the same step."""
    names = {"wise/alpha-0.5/bias", "wise/alpha-0.5/norm", "wise/alpha-1/bias", "wise/alpha-1/norm"}
    for knows_trainer in (False, True):
        reporter = Reporter()
        run = trainer(tmp_path / str(knows_trainer), reporter)
        callback = WiseFTCallback(measure=bias, every=3, trainer=run if knows_trainer else None)
        run.add_callback(callback)
        run.train()
        logged = [entry for entry in run.state.log_history if names & entry.keys()]
        assert [(entry["step"], entry["epoch"]) for entry in logged] == [(3, 1.5)]
        assert names <= logged[0].keys()
        assert logged[0]["wise/alpha-1/bias"] == callback.history[-2]["value"]
        seen = [(step, logs) for step, logs in reporter.seen if names & logs.keys()]
        assert [step for step, _ in seen] == ([3] if knows_trainer else [])


def test_a_plain_module_is_trained_and_mixed_too(tmp_path):
    """A module that is none of transformers', which returns its loss, and a zero-shot file under the same names."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(3 * 16 * 16, 3)

        def forward(self, pixel_values, labels=None):
            logits = self.classifier(pixel_values.flatten(1))
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = Plain()
    torch.save(Plain().state_dict(), tmp_path / "zs.pt")
    callback = WiseFTCallback(
        tmp_path / "zs.pt", alphas=(0.0,), measure=lambda module: float(module.classifier.bias.sum()), metric="bias"
    )
    trainer(tmp_path / "out", callback, model=model).train()
    start, end = torch.load(tmp_path / "zs.pt")["classifier.bias"], model.classifier.bias.detach()
    found = [(record["epoch"], record["alpha"], record["value"]) for record in callback.history]
    assert found[2:] == [(2, 0, float(start.sum())), (2, 1, float(end.sum()))]


def test_runs_that_shard_weights_or_resume_are_refused(tmp_path):
    """FSDP is refused before the first step; so is a resumed run without the zero-shot weights, but not with them."""
    run = trainer(tmp_path / "fsdp", WiseFTCallback(measure=bias))
    run.args.fsdp = ["full_shard"]
    with pytest.raises(UsageError, match="fsdp.*shards the weights"):
        run.train()
    start = clip().state_dict()
    trainer(tmp_path / "run", num_train_epochs=1).train()
    with pytest.raises(UsageError, match="resumes at step 2"):
        trainer(tmp_path / "run", WiseFTCallback(measure=bias)).train(resume_from_checkpoint=True)
    callback = WiseFTCallback(start, measure=bias)
    trainer(tmp_path / "run", callback).train(resume_from_checkpoint=True)
    assert {record["epoch"] for record in callback.history} == {2}
