"""Gates of a registered bundle, checked against what is known of it and of the bundle that is live."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from skewless.bundles.model_files import ModelFormat
from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition
from skewless.training.facts import NO_DATASET, EvaluationFacts, Latency, facts_of
from skewless.training.gates import Gate, GateReport, LatencyGate, check_gates, gates_of

if TYPE_CHECKING:
    from skewless.bundles.bundle import Bundle
    from skewless.cli.workspace import Workspace


def check_bundle(workspace: "Workspace", candidate: Digest, live: Digest | None) -> GateReport:
    """What the candidate's gates find beside the live bundle, None where nothing is live.

    Evaluations come from the bundles and the registry; where a gate asks for latency, both models are run here, in
    turns. A bundle without gates passes; what is not known, such as the evaluation of a bundle that was made without
    one, leaves gates undecided. Raises as `Workspace.bundle`.
    """
    bundle = workspace.bundle(candidate)
    gates = gates_of(bundle.provenance)
    if not gates:
        return GateReport(())
    other = None if live is None or live == bundle.digest else workspace.bundle(live)
    latencies = _latencies(gates, bundle, other)
    facts = replace(_facts(bundle), latencies=latencies["candidate"])
    if other is None:
        return check_gates(gates, facts, None)
    evaluated = evaluations_of(workspace, other.digest)
    known = replace(_facts(other), latencies=latencies["live"], evaluated_on=evaluated)
    return check_gates(gates, facts, known)


def evaluations_of(workspace: "Workspace", bundle: Digest) -> dict[Digest, EvaluationFacts]:
    """What the registry keeps of a bundle's evaluations, by hold-out."""
    with workspace.registry() as registry:
        records = registry.evaluations(bundle)
    return {each.dataset: EvaluationFacts(each.dataset, each.metrics, each.slices) for each in records}


def _facts(bundle: "Bundle") -> EvaluationFacts:
    try:
        return facts_of(bundle.provenance)
    except InvalidDefinition:
        return EvaluationFacts(NO_DATASET, {}, {})


def _latencies(gates: Sequence[Gate], bundle: "Bundle", live: "Bundle | None") -> dict[str, tuple[Latency, ...]]:
    """Latencies of the models for every number of rows that a gate asks for; none of a model that cannot run here."""
    sizes = sorted({gate.rows for gate in gates if isinstance(gate, LatencyGate)})
    bundles = {"candidate": bundle} | ({} if live is None else {"live": live})
    runnable = {name: each for name, each in bundles.items() if each.model.format is ModelFormat.ONNX}
    none: dict[str, tuple[Latency, ...]] = dict.fromkeys(("candidate", "live"), ())
    if not sizes or not runnable:
        return none
    from skewless.adapters.local_model import local_model
    from skewless.adapters.model_latency import measure_latency

    models = {name: (local_model(each).run, each.golden.tensor) for name, each in runnable.items()}
    measured = [measure_latency(models, rows) for rows in sizes]
    return {**none, **{name: tuple(each[name] for each in measured) for name in models}}
