"""Materializes feature views when they are due, each in a process of its own."""
