"""The command line: `skewless …`."""
