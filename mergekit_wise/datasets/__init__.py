"""Data sets: where the images are and what the labels mean. Knows no model and no logits."""
