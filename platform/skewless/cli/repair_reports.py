"""Reports of repairs, kept as JSON in the home: `<home>/repairs/<project>/<moment>.json`."""

import json
from pathlib import Path
from typing import Any

from skewless.monitor_limits import REPAIR_REPORTS_MAX

_SUFFIX = ".json"


def store_repair(home: Path, report: dict[str, Any]) -> Path:
    """Keep a report; of one project the newest REPAIR_REPORTS_MAX are kept."""
    folder = home / "repairs" / str(report["project"])
    folder.mkdir(parents=True, exist_ok=True)
    moment = "".join(each for each in str(report["ended_at"]) if each not in "-:")
    file = folder / f"{moment}{_SUFFIX}"
    incoming = file.with_suffix(".incoming")
    incoming.write_text(json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n")
    incoming.replace(file)
    for old in sorted(folder.glob(f"*{_SUFFIX}"))[:-REPAIR_REPORTS_MAX]:
        old.unlink(missing_ok=True)
    return file
