"""The example of a LoRA adapter merges it at several alphas."""

import re

import pytest


@pytest.mark.filterwarnings("ignore")  # transformers' and peft's own
def test_alpha_1_is_what_peft_merges_and_smaller_ones_keep_more(run):
    """Folders at all alphas give the sweep's accuracies; alpha 1 is peft's model; one between is better on blue."""
    ran = run("lora_adapter.py")
    rows = {key: (red, blue) for key, red, blue in re.findall(r"^ *(\S+) +(\S+)% +(\S+)%$", ran.printed, re.MULTILINE)}
    assert rows["1"] == rows["peft"]
    candidates = {f"{each.alpha:g}": each for each in ran.found["report"].candidates}
    assert candidates.keys() == rows.keys() - {"peft"}
    for alpha, each in candidates.items():
        assert (f"{100 * each.reference_accuracy:.1f}", f"{100 * each.shift_accuracy:.1f}") == rows[alpha]
    assert candidates["1"].reference_accuracy > candidates["0"].reference_accuracy
    assert candidates["0.5"].shift_accuracy > candidates["1"].shift_accuracy
