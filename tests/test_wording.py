"""Tests of the phrases that messages share."""

import random

import pytest

from mergekit_wise.wording import did_you_mean, fold, fold_names, listed, plural, shown, visible


def test_a_suggestion_names_the_words_that_look_alike():
    """A misspelt word is followed by the known word, an unlike word by nothing."""
    assert did_you_mean("imagnet", ["imagenet", "cifar"]) == " Did you mean 'imagenet'?"
    assert did_you_mean("digitz", ["digits", "digits"]) == " Did you mean 'digits'?"
    assert did_you_mean("xyz", ["imagenet", "cifar"]) == ""
    assert did_you_mean("dept", ["depth", "deps", "kept"], most=1) == " Did you mean 'depth'?"


@pytest.mark.parametrize(
    ("items", "text"),
    [("", ""), ("ab", "a, b"), ("abc", "a, b, c"), ("abcd", "a, b, c and 1 more")],
)
def test_a_list_is_cut_after_the_number_of_items_asked_for(items, text):
    """Lists that fit are whole, and longer ones end with the number of items left out."""
    assert listed(items, 3) == text


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "tensor", "1 tensor"),
        (2, "tensor", "2 tensors"),
        (0, "tensor", "0 tensors"),
        (2048, "class", "2,048 classes"),
        (3, "entry", "3 entries"),
        (3, "key", "3 keys"),
        (2, "batch", "2 batches"),
    ],
)
def test_the_noun_agrees_with_its_number(count, noun, text):
    """Every kind of noun that messages use has its right plural."""
    assert plural(count, noun) == text


def test_folding_loses_no_name():
    """Runs, gaps, other endings, leading zeros and names without a number can be read off the lines."""
    names = ["b.0.w", "b.1.w", "b.2.w", "b.5.w", "b.0.v", "plain", "b.007.w"]
    assert fold_names(names) == ["b.{0..2,5}.w", "b.0.v", "plain", "b.007.w"]


def test_names_with_several_numbers_are_folded_where_all_combinations_are_there():
    """The lines of a ResNet of unequal stages stand for its names and no others."""
    names = [f"layer{i}.{j}.bn{k}.w" for i in (1, 2, 3) for j in range(4 if i == 2 else 3) for k in (1, 2)]
    assert fold_names(names) == ["layer{1,3}.{0..2}.bn{1..2}.w", "layer2.{0..3}.bn{1..2}.w"]


def test_only_names_that_are_alike_share_a_line():
    """Each line comes with its names, and names of another kind have a line of their own."""
    found = fold(["a.0", "a.1", "a.2"], {"a.0": "x", "a.1": "y", "a.2": "x"}.get)
    assert found == [("a.{0,2}", ("a.0", "a.2")), ("a.1", ("a.1",))]


@pytest.mark.parametrize("seed", range(3))
def test_random_names_can_be_read_off_their_lines(seed):
    """Shell braces, expanded, give every name once and no other."""
    rng = random.Random(seed)
    names = {"".join(rng.choices(("a", ".", "1", "2", "12", "0", "b"), k=rng.randint(1, 7))) for _ in range(300)}

    def expanded(line):
        head, brace, rest = line.partition("{")
        if not brace:
            return [head]
        inner, _, tail = rest.partition("}")
        numbers = [run.split("..") for run in inner.split(",")]
        every = [n for run in numbers for n in range(int(run[0]), int(run[-1]) + 1)]
        return [f"{head}{number}{end}" for number in every for end in expanded(tail)]

    assert sorted(name for line in fold_names(names) for name in expanded(line)) == sorted(names)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("größe", "größe"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb", r"a\nb"),
        ("\ud800", r"\ud800"),
        ("n" * 99, "n" * 17 + "..."),
    ],
    ids=["plain", "control", "line", "surrogate", "long"],
)
def test_a_text_from_a_file_is_made_safe_for_a_message(text, safe):
    """Control characters and halves of surrogate pairs are escaped, and long texts are cut."""
    assert shown(text, 20) == safe


def test_what_would_control_a_terminal_is_visible():
    """Control characters and letters that change direction become escapes; letters of all languages stay."""
    assert visible("a\x1b[31mb\x07\r\x7f\x9b") == r"a\x1b[31mb\x07\r\x7f\x9b"
    assert visible("\u202eexe.\u2066\u2028") == r"\u202eexe.\u2066\u2028"
    kept = "two lines\n\tα é 你好 שלום مرحبا 👩‍🔬 naïve"
    assert visible(kept) == kept
