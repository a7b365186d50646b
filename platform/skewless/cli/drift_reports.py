"""Folders of drift reports: `<home>/drift/<endpoint>/<moment it was made>`, each whole or not there."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skewless.errors import InvalidRequest
from skewless.monitor_limits import DRIFT_REPORT_FILE_BYTES_MAX, DRIFT_REPORTS_MAX
from skewless.timestamps import format_timestamp

INDEX = "index.html"
REPORT_JSON = "report.json"
_INCOMING = ".incoming"
_GONE = ".gone"


def reports_of(home: Path, endpoint: str) -> Path:
    """The folder of an endpoint's reports."""
    return home / "drift" / endpoint


def fits(text: str) -> bool:
    """Whether a file may be as large as this text."""
    return len(text.encode()) <= DRIFT_REPORT_FILE_BYTES_MAX


def keep(files: Mapping[str, str], folder: Path) -> Path:
    """Write a report's files into a folder that is not there yet, or empty; returns it. Raises InvalidRequest.

    They are there all at once: where the process dies, nothing but a folder named `.incoming` is left, which the next
    report replaces.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidRequest(
            f"`{folder}` exists and is not empty", path="--out", allowed="a folder that is new or empty"
        )
    incoming = folder.with_name(f".{folder.name}{_INCOMING}")
    try:
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(parents=True)
        for name, text in files.items():
            (incoming / name).write_text(text, encoding="utf-8")
        incoming.replace(folder)  # an empty folder gives way
    except OSError as error:
        raise InvalidRequest(
            f"`{folder}` cannot be written: {error.strerror or error}",
            path="--out",
            allowed="a folder on a disk with room",
        ) from error
    return folder


def keep_in_home(files: Mapping[str, str], home: Path, endpoint: str, made_us: int) -> Path:
    """Write a report into its endpoint's folder, and remove the oldest beyond DRIFT_REPORTS_MAX."""
    folder = reports_of(home, endpoint)
    name = "".join(each for each in format_timestamp(made_us) if each not in "-:.")
    kept = keep(files, folder / name)
    for old in sorted(each for each in folder.iterdir() if not each.name.startswith("."))[:-DRIFT_REPORTS_MAX]:
        gone = old.with_name(f".{old.name}{_GONE}")
        old.rename(gone)  # no reader meets half of it
        shutil.rmtree(gone, ignore_errors=True)
    return kept


def as_json(value: Mapping[str, Any]) -> str:
    """The text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
