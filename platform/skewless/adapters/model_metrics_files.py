"""How many records of a prediction log there are of each day or period, by counting each stored file once.

Files of the log store never change: compaction and deletion put others in their place. So what was counted of a file is
remembered, and a look reads the files that are new, and the spool. A segment that was just shipped is in both for a
while; a file that has rows of it is counted without them, and again at the next look.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skewless.adapters.log_session import LogSession
from skewless.adapters.log_views import Scan
from skewless.features.point_in_time import literal

_STORED = "stored"
"""What the session calls relations of stored files; the others are of the spool."""


@dataclass(slots=True)
class CountedFiles:
    """Counts of one kind of records of one log, by what one expression over its columns says. Not for threads."""

    _value: str = ""
    _known: dict[str, Counter[Any]] = field(default_factory=dict)

    def counts(self, session: LogSession, scans: Sequence[Scan], value: str) -> Mapping[Any, int]:
        """Records by `value`, an SQL expression; scans are all of the kind. Another expression counts all anew."""
        files = {path for scan in scans for path in scan.source.stored}
        kept = self._known.items() if value == self._value else ()
        self._value, self._known = value, {path: counts for path, counts in kept if path in files}
        found: Counter[Any] = Counter()
        for scan in scans:
            found += self._of_spool(session, scan)
            found += self._of_store(session, scan)
        return found

    def _of_spool(self, session: LogSession, scan: Scan) -> Counter[Any]:
        found: Counter[Any] = Counter()
        for relation in _spooled(scan):
            sql = f"SELECT {self._value}, count(*) FROM {relation} GROUP BY ALL"  # noqa: S608  # names of ours
            values, counts = session.arrow(sql).columns
            for value, rows in zip(values.to_pylist(), counts.to_pylist(), strict=True):
                found[value] += rows
        return found

    def _of_store(self, session: LogSession, scan: Scan) -> Counter[Any]:
        found: Counter[Any] = Counter()
        new = [path for path in scan.source.stored if path not in self._known]
        for path in scan.source.stored:
            found += self._known.get(path, Counter())
        if new:
            counted, unsettled = self._counted(session, scan, new)
            self._known.update({path: counts for path, counts in counted.items() if path not in unsettled})
            found += sum(counted.values(), Counter())
        return found

    def _counted(
        self, session: LogSession, scan: Scan, files: Sequence[str]
    ) -> tuple[dict[str, Counter[Any]], set[str]]:
        """Counts of files, and those that have rows which the spool has too: these are not counted."""
        spooled = " UNION ".join(f"SELECT segment FROM {each}" for each in _spooled(scan))  # noqa: S608  # as above
        again = f"segment IN ({spooled})" if spooled else "false"
        listed = ", ".join(map(literal, files))
        rows = session.arrow(
            f"SELECT filename, {again} AS again, {self._value} AS value, count(*) AS records "  # noqa: S608  # quoted
            f"FROM read_parquet([{listed}], hive_partitioning = false, filename = true) GROUP BY ALL"
        ).to_pylist()
        counted: dict[str, Counter[Any]] = {}
        for each in rows:
            if not each["again"]:
                counted.setdefault(each["filename"], Counter())[each["value"]] = each["records"]
        return counted, {each["filename"] for each in rows if each["again"]}


def _spooled(scan: Scan) -> list[str]:
    return [each for each in scan.relations if not each.startswith(_STORED)]
