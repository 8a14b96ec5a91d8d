"""Rules that look at the weights alone, and the controls that only shrink the update."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.merging import Mixer, Pair, Rules, make_plan, open_backend
from mergekit_wise.merging.data_free import data_free_rules, monosoup, soften
from mergekit_wise.models.pairing import match
from mergekit_wise.models.source import open_source

SHAPES = {
    "visual.transformer.resblocks.0.w": (6, 9),
    "visual.transformer.resblocks.1.w": (5, 4, 3),
    "visual.transformer.resblocks.1.bias": (7,),
    "visual.proj": (3, 8),
    "equal": (4, 4),
}


@pytest.fixture
def pair(tmp_path) -> Pair:
    torch.manual_seed(0)
    first = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    second = {name: tensor + (0 if name == "equal" else torch.randn(tensor.shape)) for name, tensor in first.items()}
    save_file(first, tmp_path / "zs.safetensors")
    save_file(second, tmp_path / "ft.safetensors")
    return match(open_source(tmp_path / "zs.safetensors"), open_source(tmp_path / "ft.safetensors"))


def weights(rule):
    """The tensors of a mixture, float64, by name."""
    mixer = Mixer(rule.pair, open_backend("cpu"))
    steps = make_plan(rule.pair, rule.rules)
    return {step.info.name: mixer.whole(step).reshape(step.info.shape).astype(np.float64) for step in steps}


def update(found, zeroshot):
    return {name: found[name] - zeroshot[name] for name in found}


def norm(tensors):
    return np.sqrt(sum(float((tensor**2).sum()) for tensor in tensors.values()))


def by_definition(matrix, energy):
    """MonoSoup of a matrix, with sums of rank-one matrices in place of a product."""
    u, s, vt = np.linalg.svd(matrix)
    k = next(k for k in range(1, len(s) + 1) if sum(s[:k] ** 2) >= energy * sum(s**2))
    high = sum(s[i] * np.outer(u[:, i], vt[i]) for i in range(k))
    if k == len(s):
        return matrix
    rho = (s[k] / s[0]) ** 2
    low = rho + (1 - rho) * np.sqrt(1 - sum(s[:k] ** 2) / sum(s**2))
    return (1 - low) * high + low * (matrix - high)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 5), (4, 4)])
@pytest.mark.parametrize("energy", [0.5, 0.8, 1.0])
def test_monosoup_is_its_formula(shape, energy):
    """Strong and weak directions get their factors, whatever the shape."""
    matrix = np.random.default_rng(sum(shape)).standard_normal(shape)
    assert soften(matrix, energy) == pytest.approx(by_definition(matrix, energy))


def test_the_soup_has_the_softened_matrices_and_the_other_tensors_of_the_fine_tuned_side(pair):
    """Kernels are flattened to matrices; vectors and equal tensors stay; the ratios are those of the norms."""
    plan = [step for step in make_plan(pair, Rules()) if step.action == "mix"]
    soup, ratios = monosoup(pair, plan)
    for name, shape in SHAPES.items():
        first, second = (side.read(name).astype(np.float64).reshape(shape) for side in (pair.zeroshot, pair.finetuned))
        found = soup.read(name).reshape(shape)
        if len(shape) < 2 or name == "equal":
            assert np.array_equal(found, second)
            assert name not in ratios
        else:
            wanted = by_definition((second - first).reshape(shape[0], -1), 0.8).reshape(shape)
            assert found == pytest.approx(first + wanted, abs=1e-6)
            assert ratios[name] == pytest.approx(np.linalg.norm(wanted) / np.linalg.norm(second - first))


@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_every_control_is_an_update_of_the_same_size_in_the_direction_of_fine_tuning(pair, alpha):
    """Sizes are those of the mixed weights, and the control of each rule has the same one, and the direction of D."""
    found = {rule.name: rule for rule in data_free_rules(pair, Rules(alpha))}
    zeroshot = {name: pair.zeroshot.read(name).astype(np.float64).reshape(shape) for name, shape in SHAPES.items()}
    whole = {
        name: pair.finetuned.read(name).astype(np.float64).reshape(shape) - zeroshot[name]
        for name, shape in SHAPES.items()
    }
    updates = {name: update(weights(rule), zeroshot) for name, rule in found.items()}
    assert {"one alpha", "vectors fine-tuned", "LiNeS", "MonoSoup"} < found.keys()
    for name, rule in found.items():
        assert norm(updates[name]) / norm(whole) == pytest.approx(rule.size, rel=1e-5)
        if rule.control is not None:
            assert norm(updates[rule.control]) == pytest.approx(norm(updates[name]), rel=1e-5)
            for tensor, direction in whole.items() if name != "MonoSoup" else ():
                assert updates[rule.control][tensor] == pytest.approx(rule.size * direction, abs=1e-6)
    assert found["MonoSoup"].control == "shrunk as by MonoSoup"
    own = updates["shrunk as by MonoSoup"]
    for name, shape in SHAPES.items():
        assert np.linalg.norm(own[name]) == pytest.approx(np.linalg.norm(updates["MonoSoup"][name]), rel=1e-5)
        if len(shape) < 2:
            assert own[name] == pytest.approx(alpha * whole[name], abs=1e-6)


def test_the_rules_are_what_their_names_say(pair):
    """Vectors are the fine-tuned ones; LiNeS leaves the first block alone and doubles alpha in the last."""
    found = {rule.name: weights(rule) for rule in data_free_rules(pair, Rules(0.4))}
    first, second = (
        {name: side.read(name).astype(np.float64).reshape(shape) for name, shape in SHAPES.items()}
        for side in (pair.zeroshot, pair.finetuned)
    )
    bias, matrix = "visual.transformer.resblocks.1.bias", "visual.proj"
    assert np.array_equal(found["vectors fine-tuned"][bias], second[bias])
    assert found["vectors fine-tuned"][matrix] == pytest.approx(0.6 * first[matrix] + 0.4 * second[matrix], abs=1e-6)
    zero, last = "visual.transformer.resblocks.0.w", "visual.transformer.resblocks.1.w"
    assert np.array_equal(found["LiNeS"][zero], first[zero])
    assert found["LiNeS"][last] == pytest.approx(0.2 * first[last] + 0.8 * second[last], abs=1e-6)
    assert found["MonoSoup"][bias] == pytest.approx(0.6 * first[bias] + 0.4 * second[bias], abs=1e-6)
