"""Data sets, and how bundles did on them."""

from sqlalchemy import select

from skewless.canonical_json import Digest
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.registry.records import DatasetRecord, EvaluationRecord
from skewless.registry.rows import dataset_record, dataset_row, evaluation_record
from skewless.registry.tables import BundleRow, DatasetRow, EvaluationRow
from skewless.registry.transactions import RegistryPart


class Evaluations(RegistryPart):
    """The part of the registry that knows data sets and evaluations."""

    def add_dataset(self, record: DatasetRecord, *, actor: str = "unknown", reason: str = "") -> None:
        """Keep a data set's record. Does nothing where its digest is known already.

        Raises InvalidDefinition for a period that ends before it starts, Conflict where the digest is known with
        another number of rows, which a true digest cannot have.
        """
        if record.start is not None and record.end is not None and record.end < record.start:
            raise InvalidDefinition(f"data set `{record.name}` ends before it starts: {record.end} < {record.start}")
        with self._transactions.write() as session:
            known = session.get(DatasetRow, record.digest)
            if known is not None:
                if known.rows != record.rows:
                    raise Conflict(
                        f"data set `{record.digest}` is known with {known.rows} rows, not {record.rows}",
                        hint="a digest names one content; make the data set again",
                    )
                return
            session.add(dataset_row(record))
            detail = {"name": record.name, "rows": record.rows}
            self._audit(session, f"dataset/{record.digest}", "add", actor=actor, reason=reason, detail=detail)

    def dataset(self, digest: Digest) -> DatasetRecord:
        """The data set of that digest. Raises NotFound."""
        with self._transactions.read() as session:
            row = session.get(DatasetRow, digest)
            if row is None:
                raise NotFound("dataset", digest, hint="`skewless train` and `skewless dataset build` record them")
            return dataset_record(row)

    def datasets(self, name: str | None = None) -> tuple[DatasetRecord, ...]:
        """Every data set, or every one of that name, newest first."""
        wanted = select(DatasetRow).order_by(DatasetRow.created_time.desc(), DatasetRow.digest)
        if name is not None:
            wanted = wanted.where(DatasetRow.name == name)
        with self._transactions.read() as session:
            return tuple(dataset_record(row) for row in session.scalars(wanted))

    def add_evaluation(self, record: EvaluationRecord, *, actor: str = "unknown", reason: str = "") -> None:
        """Keep how a bundle did on a data set, in place of what was known of the two.

        Raises NotFound where the bundle or the data set is not registered.
        """
        with self._transactions.write() as session:
            for kind, table, digest in (("bundle", BundleRow, record.bundle), ("dataset", DatasetRow, record.dataset)):
                if session.get(table, digest) is None:
                    raise NotFound(kind, digest, hint=f"register the {kind} before its evaluation")
            key = {"bundle_digest": record.bundle, "dataset_digest": record.dataset}
            row = session.get(EvaluationRow, key, with_for_update=True)
            if row is None:
                row = EvaluationRow(**key)
                session.add(row)
            row.metrics, row.slices = dict(record.metrics), dict(record.slices)
            row.created_time = record.created_time
            detail = {"dataset": record.dataset, "metrics": dict(record.metrics)}
            self._audit(session, f"bundle/{record.bundle}", "evaluate", actor=actor, reason=reason, detail=detail)

    def evaluations(self, bundle: Digest) -> tuple[EvaluationRecord, ...]:
        """How a bundle did, newest first; empty for one that was never evaluated, or is not registered."""
        wanted = (
            select(EvaluationRow)
            .where(EvaluationRow.bundle_digest == bundle)
            .order_by(EvaluationRow.created_time.desc(), EvaluationRow.dataset_digest)
        )
        with self._transactions.read() as session:
            return tuple(evaluation_record(row) for row in session.scalars(wanted))
