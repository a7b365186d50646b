"""Accounts of logged predictions, one by one: everything that a record says, and what recomputing it gives."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from skewless.adapters.recorded_rows import facts_of, outcomes_of, outputs_of, recorded_rows, values_of
from skewless.canonical_json import Digest
from skewless.cli.replay_bundles import ReplayBundles, opened_bundle, rechecker
from skewless.cli.workspace import Workspace
from skewless.replays.account import Account, OutcomeTold, RecordedFacts, account_of, account_without_bundle
from skewless.replays.recheck import Rechecker
from skewless.rollout.routes import Role

if TYPE_CHECKING:
    from skewless.adapters.log_reader import LogReader


def accounts(workspace: Workspace, log: "LogReader", prediction_ids: Sequence[str]) -> Iterator[Account]:
    """The account of each prediction, in order. Raises NotFound for one that the log does not have."""
    bundles = ReplayBundles(workspace)
    recheckers: dict[Digest, Rechecker] = {}
    tables = [log.find(each) for each in prediction_ids]
    facts = [facts_of(table) for table in tables]
    outcomes = outcomes_of(log.final_outcomes(sorted({_asked_about(each) for each in facts})))
    for table, own in zip(tables, facts, strict=True):
        yield _account(workspace, table, own, outcomes.get(_asked_about(own)), bundles, recheckers)


def _asked_about(facts: RecordedFacts) -> str:
    """Whose outcome is told: what turns out is about the prediction that answered, which a shadow stands beside."""
    return (facts.live_prediction_id or facts.prediction_id) if facts.role == Role.SHADOW else facts.prediction_id


def _account(
    workspace: Workspace,
    table: Any,
    facts: RecordedFacts,
    outcome: OutcomeTold | None,
    bundles: ReplayBundles,
    recheckers: dict[Digest, Rechecker],
) -> Account:
    values = values_of(table)
    digest = Digest(facts.bundle)
    folder = bundles.folder(digest)
    if folder is None:
        return account_without_bundle(facts, values, outcome, outputs_of(table), bundles.gone[digest])
    if digest not in recheckers:
        packages = workspace.settings.allowed_step_packages
        recheckers[digest] = rechecker(opened_bundle(folder, digest, packages), workspace.settings.target)
    own = recheckers[digest]
    columns = [name for name, _ in own.bundle.contract.columns]
    recorded = recorded_rows(table, own.bundle, columns)
    found = own.recheck(recorded, told_max=1)
    told = sorted((each for each in values if each.name in columns), key=lambda each: columns.index(each.name))
    return account_of(facts, told, outcome, own.bundle, recorded, found, own.bound)
