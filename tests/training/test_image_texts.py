"""The text of each image in the contrastive objective, drawn by the seed from several."""

from collections import Counter

import numpy as np
import pytest
import torch
from open_clip import SimpleTokenizer

from mergekit_wise.datasets.captioned_images import CaptionedImages
from mergekit_wise.training.image_texts import OwnCaptions, notes_on_length

CAPTIONS = (("a",), ("a", "b"), ("c", "d", "e"))
TOKENS = {"": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def tokens(texts):
    return torch.tensor([[TOKENS[text], 0] for text in texts])


def drawn(seed, indices=(0, 1, 2)):
    return OwnCaptions(CAPTIONS, tokens)(np.array(indices), seed)[1][:, 0].tolist()


def test_a_caption_depends_on_the_seed_and_the_image_alone():
    """In any batch, of any process, an image has the same caption in the same step."""
    for seed in range(20):
        whole = drawn(seed)
        assert [drawn(seed, (index,))[0] for index in range(3)] == whole
        assert drawn(seed, (2, 0)) == [whole[2], whole[0]]


def test_all_captions_of_an_image_are_drawn_alike():
    """Each of three in a third of 3,000 steps, up to five standard deviations."""
    counts = Counter(drawn(seed, (2,))[0] for seed in range(3000))
    assert counts.keys() == {3, 4, 5}
    assert all(abs(count - 1000) < 5 * np.sqrt(3000 * 2 / 9) for count in counts.values())


def test_equal_captions_have_equal_numbers():
    """Also of different images; others have others, in every process, which Python's own hash would not give."""
    numbers, _ = OwnCaptions((("a",), ("b",), ("a",), ("ä" * 99,)), lambda texts: texts)(np.arange(4), 0)
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 3
    assert numbers.dtype == torch.int64


@pytest.mark.parametrize(("words", "full"), [(5, 0), (6, 2), (20, 2)])
def test_captions_that_fill_the_text_encoder_are_counted(words, full):
    """CLIP's tokenizer with 8 tokens has room for 6 words between its first and its last one."""
    captions = (("one", "a " * words), ("two words", "b " * words))
    images = CaptionedImages("x", "X", None, str, len, captions, "")
    notes = notes_on_length(images, SimpleTokenizer(context_length=8))
    assert [note.partition(";")[0] for note in notes] == (
        [f"X: {full} of 4 captions fill all 8 tokens of the text encoder"] if full else []
    )
