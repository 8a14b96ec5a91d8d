"""Data sets: where the images are and what the labels mean. This package knows nothing of models or logits."""
