"""Tokenizers are open_clip's own, whichever a configuration asks for."""

import json

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mergekit_wise.errors import ModelError
from mergekit_wise.models.clip import create_tokenizer

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
    """Cut off at the length that the tower has."""
    tokens = create_tokenizer(open_clip.get_model_config(name))(TEXTS)
    assert torch.equal(tokens, open_clip.get_tokenizer(name)(TEXTS))


def test_other_tokenizers_come_from_transformers_with_their_options(words):
    """By their name, which may be a folder's."""
    cfg = {
        "text_cfg": {
            "context_length": 6,
            "hf_tokenizer_name": str(words),
            "tokenizer_kwargs": {"clean": "canonicalize"},
        }
    }
    tokens = create_tokenizer(cfg)(TEXTS)
    assert torch.equal(tokens, HFTokenizer(str(words), context_length=6, clean="canonicalize")(TEXTS))
    assert tokens.shape == (4, 6)


def test_a_tokenizer_beside_the_weights_comes_first(words):
    """So that a folder that was copied is enough, offline."""
    cfg = {"text_cfg": {"context_length": 6, "hf_tokenizer_name": "/nowhere/at/all"}}
    assert torch.equal(create_tokenizer(cfg, words)(TEXTS), HFTokenizer(str(words), context_length=6)(TEXTS))
    with pytest.raises(ModelError, match="could not be opened.*folder of the weights"):
        create_tokenizer(cfg)


def test_clips_own_tokenizer_is_used_whatever_lies_beside_the_weights(words):
    """Hugging Face's CLIP folders hold the same in other files; a smaller vocabulary shows that it is another one."""
    cfg = {"text_cfg": {"context_length": 6, "vocab_size": 49408}}
    assert torch.equal(create_tokenizer(cfg, words)(TEXTS), open_clip.SimpleTokenizer(context_length=6)(TEXTS))
    cfg["text_cfg"]["vocab_size"] = 7
    assert torch.equal(create_tokenizer(cfg, words)(TEXTS), HFTokenizer(str(words), context_length=6)(TEXTS))
    with pytest.raises(ModelError, match="knows 7 tokens"):
        create_tokenizer(cfg)


@pytest.mark.parametrize("option", ["trust_remote_code", "bpe_path", "subfolder"])
@pytest.mark.parametrize("name", [None, "/nowhere/at/all"])
def test_a_configuration_cannot_ask_for_code_or_files(option, name):
    """It may come from the metadata of a file that somebody sent."""
    cfg = {"text_cfg": {"hf_tokenizer_name": name, "tokenizer_kwargs": {option: True, "clean": "lower"}}}
    with pytest.raises(ModelError, match=f"not allowed: {option}"):
        create_tokenizer(cfg)


def test_code_beside_the_weights_is_not_run(words, tmp_path):
    """A tokenizer that brings its own is refused."""
    settings = json.loads((words / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}}
    (words / "tokenizer_config.json").write_text(json.dumps(settings))
    (words / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ModelError, match="could not be opened"):
        create_tokenizer({"text_cfg": {"context_length": 6, "hf_tokenizer_name": "mine"}}, words)
    assert not (tmp_path / "ran").exists()
