"""Triton model templates, copied into model repositories as package data."""
