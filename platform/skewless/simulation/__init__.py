"""Replaying history as live traffic on an accelerated clock, for demonstrations and back-tests."""
