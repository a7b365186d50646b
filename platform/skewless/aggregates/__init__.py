"""Streaming aggregates: windows over events, one algebra for what is served and what is trained on."""
