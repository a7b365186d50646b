"""Sealed segments of a log taken to its store, as the shipper does it but at once and for one test."""

import uuid
from pathlib import Path

from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_tables import segment_tables
from skewless.adapters.spool import SPOOL, read_frames, sealed_segments, segment_name
from skewless.serving.log_blocks import decode


def ship(folder: Path, store: str | None = None, *, keep: bool = False) -> int:
    """Write every sealed segment of a log's folder to its store; returns how many. `keep`: they stay in the spool."""
    opened = open_log_store(store or str(folder / "store"))
    segments = sealed_segments(folder / SPOOL)
    for path in segments:
        tables = segment_tables(segment_name(path), map(decode, read_frames(path)))
        opened.append(uuid.uuid4().hex, 1, tables)
        if not keep:
            path.unlink()
    return len(segments)
