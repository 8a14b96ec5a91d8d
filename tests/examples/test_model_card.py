"""The example of a model card runs."""


def test_the_example_writes_a_card_and_lists_the_upload(run):
    """The card has results on both data sets, and the dry run lists weights, card, plot and page."""
    found = run("model_card.py").found
    assert found["written"].datasets == 2
    names = {file.name for file in found["planned"].files}
    assert names == {"model.safetensors", "config.json", "README.md", "report.html", "card-sweep.png"}
