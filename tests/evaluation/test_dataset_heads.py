"""The heads of data sets are built once for all mixtures with the same text tower."""

from types import SimpleNamespace

import torch

from mergekit_wise.evaluation.dataset_heads import Heads
from mergekit_wise.progress import silent


class Fake:
    """A model whose text tower is one number, which the setters of variants set."""

    has_own_head = False

    def __init__(self):
        self.tower, self.built, self.used, self.module = "", [], [], torch.nn.Linear(1, 1)

    def text_digest(self):
        return self.tower

    def zeroshot_head(self, names, templates, progress, note, cache, digest):
        assert digest == self.tower
        note("prompts are cut off")
        self.built.append((self.tower, names))
        return torch.tensor([[float(len(self.tower)), float(ord(name))] for name in names])

    def use_head(self, head):
        self.used.append(head.tolist())


def setting(model, tower):
    return lambda: setattr(model, "tower", tower)


def test_mixtures_with_one_text_tower_share_its_head():
    """For three variants, two with one text tower, two heads are built; for a second data set of their classes none."""
    model, notes = Fake(), []
    heads = Heads(model, "zero-shot", silent, notes.append)
    towers = ["a", "bb", "a"]
    setters = [setting(model, tower) for tower in towers]
    for names in ("xyz", "zx"):
        dataset = SimpleNamespace(classnames=tuple(names), templates=("{}",))
        for tower, set_both in zip(towers, heads.setters([0, 1, 2], setters, dataset), strict=True):
            set_both()
            assert model.tower == tower
            assert model.used.pop() == [[len(tower), ord(name)] for name in names]
    assert model.built == [("a", ("x", "y", "z")), ("bb", ("x", "y", "z"))]
    assert notes == ["prompts are cut off"]
