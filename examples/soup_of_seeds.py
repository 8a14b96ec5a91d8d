"""Three fine-tunings of one model, their soups, and WiSE-FT of a soup, in one table.

Run ``python examples/soup_of_seeds.py FOLDER``. FOLDER/zeroshot.safetensors is the model of ``wise demo``, which is run
there if it is missing. Every ``# %%`` is a cell for editors that know notebooks.
"""

# %% [markdown]
# Fine-tunings of one start that differ in nothing but their seed find different solutions, whose mean is often better
# than each (model soups, Wortsman et al., ICML 2022). WiSE-FT then mixes that mean towards the zero-shot model.

# %%
import sys
from pathlib import Path

import mergekit_wise as wise
from mergekit_wise.results import Record


def accuracies(records: tuple[Record, ...]) -> tuple[float, float]:
    """The accuracy on the reference and the average over the shifts."""
    shifts = [record.value for record in records if record.role == "shift"]
    return next(record.value for record in records if record.role == "reference"), sum(shifts) / len(shifts)


def main(folder: Path, epochs: int = 25, limit: int | None = None) -> dict[str, tuple[float, float]]:
    """The table: for each model its accuracies. Checkpoints are left in `folder`."""
    # %% The start: a small CLIP that has seen printed digits only.
    start = folder / "zeroshot.safetensors"
    if not start.exists():
        from mergekit_wise.api.demo import demo

        demo(folder)

    # %% Three fine-tunings on handwritten digits, of which only the seed differs.
    members = [folder / f"seed{seed}.safetensors" for seed in range(3)]
    for seed, member in enumerate(members):
        if not member.exists():
            settings = {"batch_size": 32, "lr": 3e-3, "warmup": epochs, "augment": "none"}
            wise.finetune(start, "digits", member, epochs=epochs, seed=seed, **settings)

    # %% The mean of all, the mean of those that together do best, and Model Stock. Greedy chooses on one data set, so
    # its accuracy there is optimistic; with images of your own, keep some for it.
    soups = {how: folder / f"{how}.safetensors" for how in ("uniform", "greedy", "stock")}
    for how, output in soups.items():
        chosen = {"select_on": "digits", "limit": limit} if how == "greedy" else {}
        wise.soup(start, members, output, how=how, **chosen)

    # %% All in one table, and WiSE-FT of the uniform soup: nothing is written for it.
    table = {
        path.stem: accuracies(wise.evaluate(path, "digits", limit=limit).records)
        for path in (start, *members, *soups.values())
    }
    mixtures = wise.sweep(start, soup=members, suite="digits", alphas=[0.25, 0.5, 0.75], limit=limit)
    for alpha in (0.25, 0.5, 0.75):
        records = tuple(record for record in mixtures.records if record.alpha == alpha)
        table[f"WiSE-FT of uniform, alpha {alpha:g}"] = accuracies(records)
    return table


# %%
if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "soup-of-seeds")
    for name, (reference, shifts) in main(place).items():
        print(f"{name:32s} reference {reference:6.1%}   average of shifts {shifts:6.1%}")
