"""Zero-shot heads are read from the cache only if they are what would be computed."""

import open_clip
import pytest
import torch

from mergekit_wise.cache import Cache
from mergekit_wise.models.kept_heads import head_key, text_digest
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.zero_shot_head import ClipTokenizer, Prompts

NAMES, TEMPLATES = ("cat", "white dog", "newt"), ("a photo of a {}.", "the {}")


@pytest.fixture
def model(small, build, save, filled):
    """A model with a text tower, with the weights of a file."""
    checkpoint = save(build(small).state_dict(), {"model_cfg": small, "preprocess_cfg": {}})
    return filled(open_model(checkpoint), checkpoint)


@pytest.fixture
def encoded(model):
    """The sizes of the batches that the text tower has encoded."""
    sizes = []
    model.module.text.register_forward_hook(lambda module, given, found: sizes.append(len(found)))
    return sizes


def test_a_kept_head_is_the_computed_one_bit_for_bit(model, encoded, tmp_path):
    """The text tower computes it once; later it is read, and a note says so."""
    plain = model.zeroshot_head(NAMES, TEMPLATES)
    notes = []
    heads = [model.zeroshot_head(NAMES, TEMPLATES, note=notes.append, cache=Cache(tmp_path, 10**6)) for _ in range(3)]
    assert all(torch.equal(head, plain) for head in heads)
    assert encoded == [6, 6]
    assert len(notes) == 2
    assert all("using cached zero-shot heads" in note for note in notes)
    (entry,) = Cache(tmp_path, 10**6).entries()
    assert (entry.kind, entry.label[-22:]) == ("heads", "-3-classes-2-templates")


def test_a_damaged_file_is_computed_again(model, encoded, tmp_path):
    """A changed bit, a file that ends too early and an empty one give the computed head, which is stored again."""
    head = model.zeroshot_head(NAMES, TEMPLATES, cache=Cache(tmp_path, 10**6))
    (path,) = (tmp_path / "heads").iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 4
    for damaged in (bytes(flipped), whole[:-8], b""):
        path.write_bytes(damaged)
        assert torch.equal(model.zeroshot_head(NAMES, TEMPLATES, cache=Cache(tmp_path, 10**6)), head)
        assert path.read_bytes() == whole
    assert len(encoded) == 4


def test_other_weights_names_or_templates_have_other_heads(model, encoded, tmp_path):
    """The smallest change of any weight of the text tower, of a name, a template or their order counts."""
    cache = Cache(tmp_path, 10**6)
    model.zeroshot_head(NAMES, TEMPLATES, cache=cache)
    model.zeroshot_head(NAMES[::-1], TEMPLATES, cache=cache)
    model.zeroshot_head(NAMES, TEMPLATES[::-1], cache=cache)
    model.zeroshot_head((*NAMES[:2], "eft"), TEMPLATES, cache=cache)
    assert len(encoded) == 4
    for name, parameter in (*model.module.text.named_parameters(), ("scale", model.module.logit_scale)):
        if name in ("scale", "ln_final.bias", "token_embedding.weight"):
            with torch.no_grad():
                parameter.view(-1)[-1].nextafter_(torch.tensor(torch.inf))
            model.zeroshot_head(NAMES, TEMPLATES, cache=cache)
    assert len(encoded) == 7
    model.module.visual.conv1.weight.data += 1
    model.zeroshot_head(NAMES, TEMPLATES, cache=cache)
    assert len(encoded) == 7


def test_what_is_noted_of_prompts_is_noted_again(model, tmp_path):
    """A sentence on prompts that are cut off comes with a head that is read as with one that is computed."""
    for _ in range(2):
        notes = []
        model.zeroshot_head((*NAMES, "word " * 30), TEMPLATES, note=notes.append, cache=Cache(tmp_path, 10**6))
        assert [note for note in notes if "cut off" in note] == [notes[-1]]
    assert "using cached" in notes[0]


def test_the_key_depends_on_device_threads_and_settings():
    """What changes the last bits of sums, and settings that weights do not show, are part of the key."""
    tokenizer = open_clip.SimpleTokenizer(context_length=12)

    def key(cfg=(("heads", 1),), length=12, device="cpu"):
        prompts = Prompts(ClipTokenizer(tokenizer, {"context_length": length}), NAMES, TEMPLATES)
        return head_key("model", dict(cfg), "0" * 64, prompts, torch.device(device))

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        other = key()
    finally:
        torch.set_num_threads(threads)
    assert key() == key()
    assert len({key(), other, key({"heads": 2}.items()), key(length=13), key(device="mps")}) == 5


def test_prompts_are_not_tokenized_for_a_kept_head(model, tmp_path, monkeypatch):
    """CLIP's own tokenizer is known by its settings, so that a run that reads its head does not wait for tokens."""
    head = model.zeroshot_head(NAMES, TEMPLATES, cache=Cache(tmp_path, 10**6))
    model._prompts.clear()
    monkeypatch.setattr(Prompts, "tokens", lambda *_: pytest.fail("tokenized"))
    assert torch.equal(model.zeroshot_head(NAMES, TEMPLATES, cache=Cache(tmp_path, 10**6)), head)


def test_digests_of_weights_depend_on_dtype_and_shape(model):
    """Equal bytes in another dtype are other weights."""
    scale = model.module.logit_scale
    digest = text_digest(model.module.text, scale)
    assert digest == text_digest(model.module.text, scale) == model.text_digest()
    assert digest != text_digest(model.module.text, scale.detach().view(1))
    assert digest != text_digest(model.module.text, scale.detach().view(torch.int32))
