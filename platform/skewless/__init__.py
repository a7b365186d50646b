"""Skewless: online predictions from a feature store, shown to be what the model was trained on."""

__version__ = "0.1.0"
