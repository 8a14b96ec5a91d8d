"""WiSE-FT inside other trainers: after each epoch, mixtures of the model in training are written or measured.

Import the file for the trainer: `integrations.transformers`, `integrations.lightning`, or `integrations.loop` for a
loop of one's own. Only that file imports the trainer's library.
"""
