"""Replays: logged predictions computed again, by their own bundle or by another."""
