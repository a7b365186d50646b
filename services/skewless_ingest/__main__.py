"""Runs the ingestion service: `python -m skewless_ingest`."""

from skewless_ingest.main import run

if __name__ == "__main__":
    run()
