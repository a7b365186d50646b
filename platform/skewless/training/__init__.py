"""Defining, fitting and judging models."""
