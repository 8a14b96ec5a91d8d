"""Fine-tuning: from a zero-shot checkpoint to one that is worth merging with it.

Start reading at `trainer`. Knows no terminal; `trainable` and `features` alone know how models are built.
"""
