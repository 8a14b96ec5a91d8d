"""Class names become tokens, features and the zero-shot head."""

import json
import math

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mergekit_wise.errors import ModelError
from mergekit_wise.models.zero_shot_head import Prompts, create_tokenizer, encode_texts, zero_shot_head

TEXTS = ["a photo of a cat", "Ünïcode & <end_of_text>", "word " * 50, ""]


@pytest.fixture
def words(tmp_path):
    """The folder of a tokenizer of transformers' that knows few words."""
    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "a", "photo", "of", "cat", "word"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    fast.save_pretrained(tmp_path / "words")
    return tmp_path / "words"


@pytest.mark.parametrize("name", ["ViT-B-32", "coca_base", "RN50"])
def test_clips_tokens_are_open_clips(name):
    """Longer texts are cut off at the tower's context length."""
    tokens = create_tokenizer(open_clip.get_model_config(name))(TEXTS)
    assert torch.equal(tokens, open_clip.get_tokenizer(name)(TEXTS))


def test_a_tokenizer_next_to_the_weights_comes_first(words):
    """A copied folder is enough to work offline, with the options of the configuration."""
    text = {"context_length": 6, "hf_tokenizer_name": "roberta-base", "tokenizer_kwargs": {"clean": "canonicalize"}}
    tokens = create_tokenizer({"text_cfg": text}, words)(TEXTS)
    assert torch.equal(tokens, HFTokenizer(str(words), context_length=6, clean="canonicalize")(TEXTS))
    assert tokens.shape == (4, 6)


def test_a_tokenizer_by_a_name_from_a_file_is_loaded_only_if_open_clip_uses_it(words):
    """Neither another repository nor a local folder is read because a configuration names it."""
    for name in ("someone/tokenizer", str(words), "/nowhere/at/all"):
        with pytest.raises(ModelError, match="next to the weights"):
            create_tokenizer({"text_cfg": {"context_length": 6, "hf_tokenizer_name": name}})


def test_clips_own_tokenizer_is_used_whatever_is_next_to_the_weights(words):
    """Hugging Face's CLIP folders hold the same tokenizer; a smaller vocabulary shows that it is another one."""
    cfg = {"text_cfg": {"context_length": 6, "vocab_size": 49408}}
    assert torch.equal(create_tokenizer(cfg, words)(TEXTS), open_clip.SimpleTokenizer(context_length=6)(TEXTS))
    cfg["text_cfg"]["vocab_size"] = 7
    assert torch.equal(create_tokenizer(cfg, words)(TEXTS), HFTokenizer(str(words), context_length=6)(TEXTS))
    with pytest.raises(ModelError, match="has 7 tokens"):
        create_tokenizer(cfg)


@pytest.mark.parametrize("option", ["trust_remote_code", "bpe_path", "subfolder"])
@pytest.mark.parametrize("name", [None, "/nowhere/at/all"])
def test_a_configuration_cannot_ask_for_code_or_files(option, name):
    """A configuration may come from the metadata of an untrusted file."""
    cfg = {"text_cfg": {"hf_tokenizer_name": name, "tokenizer_kwargs": {option: True, "clean": "lower"}}}
    with pytest.raises(ModelError, match=f"not allowed: {option}"):
        create_tokenizer(cfg)


def test_code_next_to_the_weights_is_not_run(words, tmp_path):
    """A tokenizer that needs its own code is refused."""
    settings = json.loads((words / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (words / "tokenizer_config.json").write_text(json.dumps(settings))
    (words / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ModelError, match="could not be opened"):
        create_tokenizer({"text_cfg": {"context_length": 6, "hf_tokenizer_name": "mine"}}, words)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "pool", [{}, {"pool_type": "eos", "eos_id": 49407}, {"pool_type": "last"}, {"no_causal_mask": True}]
)
def test_texts_without_their_padding_have_the_same_features(pool, small, build):
    """It holds for each way to find a text's end and for any length; the mask is restored."""
    cfg = small | {"custom_text": True, "text_cfg": small["text_cfg"] | pool}
    tower = build(cfg).text
    tokens = open_clip.SimpleTokenizer(context_length=12)(["a", "a red dog", "word " * 30, ""])
    seen = []
    tower.transformer.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    with torch.no_grad():
        for texts in (tokens, tokens[:2], tokens[3:]):
            torch.testing.assert_close(encode_texts(tower, texts), tower(texts))
    short = pool in ({}, {"pool_type": "eos", "eos_id": 49407})
    assert seen == ([12, 12, 5, 12, 2, 12] if short else [12] * 6)


NAMES, TEMPLATES = ("cat", "dog", "newt"), ("a {}", "the photo of a {}, blurry", "{}")
TOKENS = torch.arange(9)[:, None]
"""Of each name's prompts; here a prompt is one number."""


def encode(tokens):
    """Features that any number has: different for different numbers, and of very different lengths."""
    return torch.stack([torch.tensor([math.sin(n * k + 1) * (n + 1) for k in range(1, 6)]) for (n,) in tokens.tolist()])


@pytest.mark.parametrize("batch", [1, 3, 7, 256])
def test_the_head_is_what_a_loop_over_numbers_gives(batch):
    """The loop is written without torch, and the batch size does not matter."""
    weight, bias = zero_shot_head(encode, TOKENS, 3, torch.tensor(1.5), batch=batch)
    assert len(weight) == 3
    for number, row in enumerate(weight.tolist()):
        mean = [0.0] * 5
        for token in range(3 * number, 3 * number + 3):
            features = encode(torch.tensor([[token]]))[0].tolist()
            length = math.sqrt(sum(x * x for x in features))
            mean = [m + x / length / 3 for m, x in zip(mean, features, strict=True)]
        length = math.sqrt(sum(x * x for x in mean))
        expected = [math.exp(1.5) * x / length for x in mean]
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(bias, torch.zeros(3))


def test_texts_are_encoded_in_batches_of_whole_classes_with_progress():
    """A batch has at most 256 texts."""
    sizes, calls = [], []
    counting = lambda tokens: sizes.append(len(tokens)) or encode(tokens)  # noqa: E731
    zero_shot_head(counting, torch.arange(600)[:, None], 3, torch.tensor(1.0), lambda *step: calls.append(step))
    assert sizes == [255, 255, 90]
    assert [done for _, done, _, _ in calls] == [0, 0, 255, 510, 600]
    assert {(total, unit) for _, _, total, unit in calls} == {(600, "prompts")}


def test_before_a_long_head_two_steps_show_how_long_it_will_take():
    """Progress has two steps, from which a rate follows, before the first batch; they change no number."""
    sizes, calls, tokens = [], [], torch.arange(81)[:, None]
    counting = lambda tokens: sizes.append(len(tokens)) or encode(tokens)  # noqa: E731
    head, _ = zero_shot_head(counting, tokens, 3, torch.tensor(1.0), lambda *step: calls.append(step[1]), batch=9)
    assert sizes == [4, 4] + 9 * [9]
    assert calls[:3] == [0, 4, 8]
    assert calls == sorted(calls)
    plain, _ = zero_shot_head(encode, tokens, 3, torch.tensor(1.0), batch=81)
    assert torch.equal(head, plain)


def test_rows_have_the_length_of_the_logit_scale():
    """Logits of features of length 1 are then cosines times exp(scale)."""
    weight, _ = zero_shot_head(encode, TOKENS, 3, torch.tensor(math.log(20)))
    torch.testing.assert_close(weight.norm(dim=1), torch.full((3,), 20.0))


def test_the_head_carries_no_gradient():
    """It is stored, and not trained through."""
    scale = torch.tensor(1.0, requires_grad=True)
    assert not zero_shot_head(encode, TOKENS, 3, scale)[0].requires_grad


def test_prompts_that_are_cut_off_are_counted():
    """A prompt counts if open_clip's tokenizer gives it more tokens in a longer context; a full one is not cut off."""
    short, long = (open_clip.SimpleTokenizer(context_length=length) for length in (8, 77))
    names = [f"a photo of {'very ' * count}cat." for count in range(8)]
    prompts = Prompts(lambda texts: short(list(texts)), names, ["{}"])
    assert torch.equal(prompts.tokens().long(), short(names))
    cut = int((long(names)[:, 8:] != 0).any(dim=1).sum())
    assert 0 < cut < len(names) - 1
    assert prompts.note().startswith(f"{cut} of 8 prompts")
    assert Prompts(lambda texts: long(list(texts)), names, ["{}"]).note() == ""


def test_prompts_are_tokenized_once_with_progress():
    """Every text goes through the tokenizer once, however often the tokens are used."""
    seen, calls = [], []
    short = open_clip.SimpleTokenizer(context_length=8)
    prompts = Prompts(lambda texts: seen.extend(texts) or short(list(texts)), NAMES, TEMPLATES)
    texts = [template.replace("{}", name) for name in NAMES for template in TEMPLATES]
    for _ in range(2):
        assert torch.equal(prompts.tokens(lambda *step: calls.append(step)).long(), short(texts))
    assert [text for text in seen if text] == texts
    assert calls == [("prompts of the zero-shot head", done, 9, "prompts") for done in (0, 9)]


def test_classes_with_the_same_tokens_are_an_error_unless_they_have_one_name():
    """Names that differ only behind the end of the context make the same rows, as do names that differ in case."""
    short = open_clip.SimpleTokenizer(context_length=6)

    def check(names, templates=("a {}", "the {}")):
        Prompts(lambda texts: short(list(texts)), names, templates).tokens()

    check(["cat", "dog", "cat"])
    check(["a b c d e f", "x b c d e f"])
    with pytest.raises(ModelError, match="'b c d e f one' and 'b c d e f two' .* cut off"):
        check(["cat", "b c d e f one", "b c d e f two"])
    with pytest.raises(ModelError, match="'cat' and 'Cat' .* share"):
        check(["cat", "Cat"])
