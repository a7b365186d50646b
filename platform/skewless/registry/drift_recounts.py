"""How far earlier rows of an endpoint are counted in a new bundle's bins: a day at a time, back from its first own."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.errors import Conflict
from skewless.registry.drift_counts import Counted, replace_counts
from skewless.registry.drift_records import DriftKey, DriftRecount
from skewless.registry.drift_tables import DriftRecountRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import DAY_US


class DriftRecounts(RegistryPart):
    """See the module."""

    def find(self, key: DriftKey) -> DriftRecount | None:
        """How far a key is; None where it was never begun."""
        with self._transactions.read() as session:
            row = _row(session, key)
            return None if row is None else _recount(row)

    def begin(self, key: DriftKey, since_us: int, until_us: int) -> DriftRecount:
        """Begin at `until_us`, or reach further back where it was begun before; what is counted is not counted anew."""
        with self._transactions.write() as session:
            row = _row(session, key)
            if row is None:
                row = DriftRecountRow(
                    endpoint_name=key.endpoint,
                    bundle_digest=key.bundle,
                    role=key.role,
                    since_us=since_us,
                    until_us=until_us,
                    next_us=max(until_us, since_us),
                    rows=0,
                )
                session.add(row)
            row.since_us = min(row.since_us, since_us)
            row.changed_time = self._clock()
            session.flush()
            return _recount(row)

    def keep(self, recount: DriftRecount, start_us: int, counted: Sequence[Counted]) -> DriftRecount:
        """Keep what was counted from `start_us` up to where the recount was, and how far it is now.

        Raises Conflict where another process went on with it meanwhile.
        """
        with self._transactions.write() as session:
            row = session.get(DriftRecountRow, _place(recount.key), with_for_update=True)
            if row is None or row.next_us != recount.next_us:
                raise Conflict(
                    f"earlier rows of `{recount.key.endpoint}` are counted by another process too",
                    hint="let one of them go on; nothing was counted twice",
                )
            for each in counted:
                replace_counts(session, each, start_us, recount.next_us)
            row.next_us = start_us
            row.rows += sum(each.counts.rows for each in counted)
            row.changed_time = self._clock()
            session.flush()
            return _recount(row)


def day_before(moment_us: int) -> int:
    """The beginning of the day that ends at a moment, or that it lies in.

    >>> day_before(DAY_US), day_before(DAY_US + 1) == DAY_US
    (0, True)
    """
    return (moment_us - 1) // DAY_US * DAY_US


def _place(key: DriftKey) -> tuple[str, str, str]:
    return key.endpoint, key.bundle, key.role


def _row(session: Session, key: DriftKey) -> DriftRecountRow | None:
    return session.get(DriftRecountRow, _place(key))


def _recount(row: DriftRecountRow) -> DriftRecount:
    key = DriftKey(row.endpoint_name, Digest(row.bundle_digest), row.role)
    return DriftRecount(key, row.since_us, row.until_us, row.next_us, row.rows)
