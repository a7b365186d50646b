"""The monitor: a process that runs the jobs which watch drift, model metrics, parity and quality, and tells of them."""
