"""What callers of one protocol send and get: each edge is thin, and answers through `predictions.py`."""
