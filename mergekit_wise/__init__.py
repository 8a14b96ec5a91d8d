"""Robust fine-tuning of zero-shot models by mixing weights (WiSE-FT)."""

__version__ = "0.1.0"
