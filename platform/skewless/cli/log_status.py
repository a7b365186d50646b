"""How the prediction log does: segments that wait, who ships them, and the tables of the store."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from skewless.adapters.log_store import open_log_store
from skewless.adapters.shipper import DAMAGED
from skewless.adapters.shipper_requests import Request, Requests
from skewless.adapters.shipping import SHIPPING, STORE_JOURNAL, read_journal, shipper_of
from skewless.adapters.spool import SEALED, SPOOL, begun_us, open_segments, sealed_segments
from skewless.errors import Unavailable
from skewless.limits import MIB
from skewless.timestamps import SECOND_US


def log_status(folder: Path, store: str) -> dict[str, Any]:
    """As plain data; `store.problem` says why its tables are not told, where the store does not answer."""
    sealed = sealed_segments(folder / SPOOL)
    oldest_s = time.time() - begun_us(sealed[0]) / SECOND_US if sealed else 0.0
    return {
        "folder": str(folder),
        "shipper": shipper_of(folder),
        "segments": {
            "open": len(open_segments(folder / SPOOL)),
            "waiting": len(sealed),
            "bytes": sum(path.stat().st_size for path in sealed if path.exists()),
            "oldest_s": round(oldest_s, 1),
            "damaged": len(list((folder / SPOOL / DAMAGED).glob(f"*{SEALED}"))),
        },
        "rounds": read_journal(folder / SHIPPING / STORE_JOURNAL).round,
        "requests": [_request(each) for each in Requests(folder).pending()],
        "store": _store(store),
    }


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """The same for a reader."""
    segments, store = status["segments"], status["store"]
    shipper = status["shipper"]
    yield f"shipper   {'none runs' if shipper is None else f'process {shipper}'}, {status['rounds']} rounds so far"
    yield (
        f"segments  {segments['open']} open, {segments['waiting']} waiting ({segments['bytes'] / MIB:.1f} MiB, the "
        f"oldest begun {segments['oldest_s']:.0f} s ago), {segments['damaged']} damaged"
    )
    for each in status["requests"]:
        of_endpoint = f" of `{each['endpoint']}`" if each["endpoint"] else ""
        yield f"request   {each['request']} ({each['work']}{of_endpoint}) is pending for {each['age_s']:.0f} s"
    yield f"store     {store['address']}{': ' + store['problem'] if store['problem'] else ''}"
    for table in store["tables"]:
        days = f"{table['first_day']} to {table['last_day']}" if table["files"] else "empty"
        yield (
            f"  {table['path']}: {table['rows']} rows, {table['files']} files, {table['bytes'] / MIB:.1f} MiB, {days}"
        )


def _request(request: Request) -> dict[str, Any]:
    """Without the values of a deletion's keys."""
    return {
        "request": request.name,
        "work": str(request.work),
        "endpoint": request.endpoint,
        "age_s": round(max(0.0, time.time() - request.time / SECOND_US), 1),
    }


def _store(address: str) -> dict[str, Any]:
    store = open_log_store(address)
    try:
        tables = store.tables()
        problem = ""
    except Unavailable as error:
        tables, problem = [], error.message
    return {
        "address": store.address,
        "problem": problem,
        "tables": [
            {
                "path": each.path,
                "rows": sum(file.rows for file in each.entries),
                "files": len(each.entries),
                "bytes": sum(file.size_bytes for file in each.entries),
                "first_day": each.entries[0].day if each.entries else None,
                "last_day": each.entries[-1].day if each.entries else None,
            }
            for each in tables
        ],
    }
