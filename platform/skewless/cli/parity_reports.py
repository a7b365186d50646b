"""Reports of parity checks, kept as JSON in the home: `<home>/parity/<endpoint>/<moment of the check>.json`."""

import json
from pathlib import Path
from typing import Any

from skewless.errors import InvalidDefinition, NotFound
from skewless.monitor_limits import PARITY_REPORTS_MAX
from skewless.parity.report import FORMAT

_SUFFIX = ".json"


def store_report(home: Path, report: dict[str, Any]) -> Path:
    """Keep a report; of one endpoint the newest PARITY_REPORTS_MAX are kept."""
    folder = _folder(home, report["endpoint"])
    folder.mkdir(parents=True, exist_ok=True)
    moment = "".join(each for each in report["checked_at"] if each not in "-:")
    file = folder / f"{moment}{_SUFFIX}"
    incoming = file.with_suffix(".incoming")
    incoming.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n")
    incoming.replace(file)
    for old in _reports(folder)[:-PARITY_REPORTS_MAX]:
        old.unlink(missing_ok=True)
    return file


def newest_report(home: Path, endpoint: str) -> dict[str, Any]:
    """The newest report of an endpoint. Raises NotFound where there is none, InvalidDefinition for another format."""
    reports = _reports(_folder(home, endpoint))
    if not reports:
        raise NotFound(
            "parity report", f"of endpoint {endpoint}", hint=f"run `skewless parity check --endpoint {endpoint}`"
        )
    found: dict[str, Any] = json.loads(reports[-1].read_text())
    if found.get("format") != FORMAT:
        raise InvalidDefinition(
            f"parity report `{reports[-1].name}` is of format {found.get('format')}, known is {FORMAT}",
            hint="run the check again",
        )
    return found


def _folder(home: Path, endpoint: str) -> Path:
    return home / "parity" / endpoint


def _reports(folder: Path) -> list[Path]:
    """Reports in the order of their checks."""
    return sorted(folder.glob(f"*{_SUFFIX}"))
