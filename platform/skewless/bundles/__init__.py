"""The unit that is shipped, everything that answers under one digest: its format, its admission, where it is kept."""
