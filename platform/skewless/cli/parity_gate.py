"""Gives a bundle a dry parity run over a workspace: recent questions, the online store, the sources, the verdict."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import numpy as np

from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.duckdb_connection import OFFLINE_STORE
from skewless.adapters.duckdb_examples import newest_questions
from skewless.adapters.duckdb_point_in_time import OfflineSession
from skewless.adapters.local_model import local_model
from skewless.adapters.parity_keys import OtherKeys
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.bundles.bundle import Bundle
from skewless.bundles.model_files import ModelFormat
from skewless.cli.parity_parts import WorkspaceParts
from skewless.cli.workspace import Workspace
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition, InvalidRequest, NotFound, Unavailable
from skewless.features.contract import FeatureContract
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.features.point_in_time import identifier
from skewless.limits import ONLINE_STORE_TIMEOUT_S
from skewless.monitor_limits import PARITY_GATE_FAULTS_MAX, PARITY_GATE_ROWS
from skewless.parity.check import Served, Subject, check_rows
from skewless.parity.definitions import changed_views
from skewless.parity.dry_run import DryRun, holds_nothing, judge, moment_of
from skewless.parity.evidence import Written
from skewless.parity.recompute import with_present_functions
from skewless.parity.report import Findings
from skewless.registry.repository import system_clock
from skewless.serving.log_privacy import log_marks
from skewless.serving.records import tensor_digest
from skewless.serving.rungs import Rung
from skewless.training.learner import Scorer


@dataclass(frozen=True, slots=True)
class _Questions:
    """Join keys and request fields (rows,), and in words where they came from."""

    given: Mapping[str, Column]
    rows: int
    asked: str


def dry_run(
    workspace: Workspace, bundle: Bundle, endpoint: str | None = None, *, faults_max: float = PARITY_GATE_FAULTS_MAX
) -> DryRun:
    """The verdict on a bundle that is to answer `endpoint`, or (None) that nothing routes to yet.

    Questions are the endpoint's newest predictions, else the newest rows of the model's examples. Raises nothing for
    what is not there: then nothing is checked, and the verdict says why. Raises Unavailable where a source is there to
    be asked and cannot be read.
    """
    try:
        with _online_store(workspace) as store, ExitStack() as opened:
            return _verdict(workspace, bundle, endpoint, store, opened, faults_max)
    except (NotFound, InvalidDefinition, Unavailable) as error:
        if isinstance(error, Unavailable) and error.part == OFFLINE_STORE:
            raise  # nobody would hold a bundle back for a source that is half written
        return DryRun.not_checked(error.message.partition("\n")[0])


def _verdict(
    workspace: Workspace,
    bundle: Bundle,
    endpoint: str | None,
    store: BlockingRedisOnlineStore,
    opened: ExitStack,
    faults_max: float,
) -> DryRun:
    logged = None if endpoint is None else _logged(workspace, bundle.contract, endpoint)
    subject, offline = _subject(workspace, bundle, store, opened)
    as_of = moment_of(
        system_clock(), subject.watermarks.values(), subject.written.values(), None if logged is None else logged[1]
    )
    questions = _examples(workspace, bundle, as_of) if logged is None else logged[0]
    if not questions.rows:
        return DryRun.not_checked(f"{questions.asked} have no row yet, so there are no entities to ask about")
    served = _served(subject, store, questions, as_of)
    if holds_nothing(served.frame):
        return DryRun.not_checked(
            f"the online store has no row of {questions.rows:,} questions from {questions.asked}: "
            "nothing has been materialized for them"
        )
    findings = Findings()
    findings.add(check_rows(subject, served, offline), subject.contract)
    return judge(findings.report({}), as_of, faults_max=faults_max, asked=questions.asked)


@contextmanager
def _online_store(workspace: Workspace) -> Iterator[BlockingRedisOnlineStore]:
    """The online store, once it has answered: loading the definitions takes seconds that nobody needs without it."""
    with closing(BlockingRedisOnlineStore(workspace.online_store_url)) as store:
        store.read((b"",), (packed("HMGET", "", ""),), timeout_s=ONLINE_STORE_TIMEOUT_S)
        yield store


def _logged(workspace: Workspace, contract: FeatureContract, endpoint: str) -> tuple[_Questions, int] | None:
    """The endpoint's newest predictions, and the newest moment (µs); None where the log cannot say what was asked."""
    named = {f"key.{key.name}": (key.name, key.dtype) for key in contract.join_keys}
    named |= {f"request.{each.name}": (each.name, each.dtype) for each in contract.request_fields}
    if log_marks(contract).keys() & {name for name, _ in named.values()}:
        return None
    query = (
        f"SELECT {', '.join(identifier(name) for name in (*named, 'as_of'))} FROM predictions "  # noqa: S608  # quoted names
        f"ORDER BY as_of DESC LIMIT {PARITY_GATE_ROWS}"
    )
    try:
        with workspace.log() as log:
            found = log.sql(query, endpoint=endpoint).read_all()
    except (NotFound, InvalidRequest):  # no log yet, or one of a bundle that was asked for other things
        return None
    if not found.num_rows:
        return None
    given = {name: column_from_arrow(found.column(source), dtype) for source, (name, dtype) in named.items()}
    newest = int(column_from_arrow(found.column("as_of"), Dtype.TIMESTAMP).values[0])
    return _Questions(given, found.num_rows, f"the newest predictions of {endpoint}"), newest


def _examples(workspace: Workspace, bundle: Bundle, as_of: int) -> _Questions:
    table = workspace.model(bundle.name).examples
    asked = f"the examples of {bundle.name}"
    folder = workspace.settings.data_folder
    if not (folder / table.path).is_file():
        return _Questions({}, 0, asked)
    given, rows = newest_questions(table, folder, bundle.contract, as_of, PARITY_GATE_ROWS)
    return _Questions(given, rows, asked)


def _subject(
    workspace: Workspace, bundle: Bundle, store: BlockingRedisOnlineStore, opened: ExitStack
) -> tuple[Subject, OfflineSession]:
    """What the questions are checked against; nothing is hidden here, since nothing went through the log."""
    parts, service = WorkspaceParts(workspace), workspace.model(bundle.name).feature_service
    sources = parts.sources(service)
    gone = [view.name for view in bundle.contract.views if view.name not in sources]
    if gone:
        raise InvalidDefinition(f"feature service `{service}` no longer has view `{gone[0]}`, which the bundle reads")
    contract, _ = with_present_functions(bundle.contract, importlib.import_module)
    offline = opened.enter_context(OfflineSession(contract, sources))
    subject = Subject(
        transform=bundle.transform,
        contract=contract,
        plan=OnDemandPlan.compile(contract, importlib.import_module),
        score=_scorer(bundle),
        output_tolerance=bundle.serving.output_tolerance,
        changed=changed_views(bundle.contract, parts.registered()),
        written={view: Written.of(runs) for view, runs in parts.materialized(service).items() if runs},
        watermarks=offline.watermarks(),
        probe=OtherKeys(contract, store),
        ingested=parts.ingested(),
    )
    return subject, offline


def _scorer(bundle: Bundle) -> Scorer:
    """The bundle's model; of a format that commands do not run nothing, so that features and inputs are compared."""
    if bundle.model.format is ModelFormat.ONNX:
        return local_model(bundle).run
    return lambda tensor: np.zeros((len(tensor), 1), dtype=np.float32)


def _served(subject: Subject, store: BlockingRedisOnlineStore, questions: _Questions, as_of: int) -> Served:
    """What a gateway would answer at that moment."""
    prepared = ReadPlan.compile(subject.contract).prepare(questions.given, questions.rows)
    replies = store.read(prepared.keys, prepared.commands, timeout_s=ONLINE_STORE_TIMEOUT_S)
    frame = subject.plan.extend(prepared.decode(replies, as_of).whole, questions.given)
    tensor = subject.transform.prepare().apply({**questions.given, **frame.columns}, questions.rows)
    return Served(
        prediction_ids=[f"question {number}" for number in range(1, questions.rows + 1)],
        as_of=np.full(questions.rows, as_of, dtype=np.int64),
        given=questions.given,
        frame=frame,
        tensor=tensor,
        has_tensor=np.ones(questions.rows, dtype=np.bool_),
        tensor_digests=[tensor_digest(row) for row in tensor],
        outputs=subject.score(tensor),
        rungs=[str(Rung.NORMAL)] * questions.rows,
    )
