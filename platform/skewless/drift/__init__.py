"""Drift: how live rows differ from training rows and from recent weeks."""
