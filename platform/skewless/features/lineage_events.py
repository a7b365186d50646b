"""Lineage as OpenLineage events (specification 2-0-2), which catalogues such as Marquez and DataHub take.

What is declared is told by events that stand for no run (DatasetEvent, JobEvent), what was done by events of a run
(RunEvent). A run's id follows from what it tells, so that an event that is sent twice is the same event.

    source table  ──materialize/<view>──▶  feature view  ──train/<bundle>──▶  bundle  ──endpoint/<name>──▶  predictions
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from skewless.canonical_json import Digest
from skewless.features.definition_metadata import DefinitionSet, FeatureMetadata, SourceMetadata, ViewMetadata
from skewless.features.definition_plan import BundleReads
from skewless.features.lineage import read_columns
from skewless.timestamps import format_timestamp

PRODUCER: Final = "urn:skewless"
SPECIFICATION: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
FACETS: Final = "https://openlineage.io/spec/facets"
_RUNS = uuid.UUID("0b7c6f0e-7a0f-5d3f-9a52-5a1f6f0b6a10")
"""Names run ids, in the sense of RFC 9562, section 5.5."""
_VERSIONS = {
    "ColumnLineageDatasetFacet": "1-2-0",
    "DatasetVersionDatasetFacet": "1-0-1",
    "DocumentationDatasetFacet": "1-1-0",
    "DocumentationJobFacet": "1-1-0",
    "ErrorMessageRunFacet": "1-0-1",
    "JobTypeJobFacet": "2-0-4",
    "LifecycleStateChangeDatasetFacet": "1-0-1",
    "NominalTimeRunFacet": "1-0-1",
    "OutputStatisticsOutputDatasetFacet": "1-0-2",
    "OwnershipDatasetFacet": "1-0-1",
    "SchemaDatasetFacet": "1-2-0",
    "StorageDatasetFacet": "1-0-1",
    "TagsDatasetFacet": "1-0-0",
}
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run of a materialization: times in µs, rows that it stored; `error` empty where it did not fail."""

    id: str
    view: str
    as_of: int
    started_time: int
    ended_time: int
    stored_rows: int
    error: str = ""


def job_namespace(project: str) -> str:
    """The namespace of a project's jobs, and of datasets that only Skewless knows.

    >>> job_namespace("prod")
    'skewless.prod'
    """
    return f"skewless.{project}"


def declared_events(definitions: DefinitionSet, views: Sequence[str], time: int) -> Iterator[Event]:
    """What is declared of some feature views at a moment (µs): each view as a dataset, and the job that fills it."""
    for name in views:
        view = definitions.views[name]
        output = _view_dataset(definitions.project, view)
        output["facets"] |= _column_lineage(definitions.project, view)
        yield {**_head("DatasetEvent", time), "dataset": output}
        yield {
            **_head("JobEvent", time),
            "job": _job(definitions.project, f"materialize/{name}", "MATERIALIZATION", view.description),
            "inputs": [] if view.source is None else [_source_dataset(definitions.project, view.source)],
            "outputs": [output],
        }


def removed_event(project: str, view: str, time: int) -> Event:
    """A feature view that is registered no more."""
    facet = _facet("LifecycleStateChangeDatasetFacet", lifecycleStateChange="DROP")
    dataset = {"namespace": job_namespace(project), "name": view, "facets": {"lifecycleStateChange": facet}}
    return {**_head("DatasetEvent", time), "dataset": dataset}


def materialization_events(definitions: DefinitionSet, run: RunFacts) -> Iterator[Event]:
    """The beginning and the end of a run; of a view that is registered no more, without its source."""
    view = next((each for each in definitions.views.values() if run.view in (each.name, each.stored_name)), None)
    name = run.view if view is None else view.name
    job = _job(definitions.project, f"materialize/{name}", "MATERIALIZATION")
    inputs = [] if view is None or view.source is None else [_source_dataset(definitions.project, view.source)]
    output = {"namespace": job_namespace(definitions.project), "name": name}
    nominal = {"nominalTime": _facet("NominalTimeRunFacet", nominalStartTime=format_timestamp(run.as_of))}
    identity = run_id(definitions.project, f"materialize/{run.id}")
    yield {
        **_head("RunEvent", run.started_time),
        "eventType": "START",
        "run": {"runId": identity, "facets": nominal},
        "job": job,
        "inputs": inputs,
        "outputs": [output],
    }
    first_line = run.error.partition("\n")[0]  # further lines may name entities and values
    told = {"outputStatistics": _facet("OutputStatisticsOutputDatasetFacet", rowCount=run.stored_rows)}
    failure = {"errorMessage": _facet("ErrorMessageRunFacet", message=first_line, programmingLanguage="PYTHON")}
    yield {
        **_head("RunEvent", run.ended_time),
        "eventType": "FAIL" if run.error else "COMPLETE",
        "run": {"runId": identity, "facets": {**nominal, **(failure if run.error else {})}},
        "job": job,
        "inputs": inputs,
        "outputs": [{**output, "outputFacets": told}],
    }


def bundle_event(project: str, bundle: BundleReads, number: int, time: int) -> Event:
    """A bundle that was registered, from the columns that its transform looks at. `number` is the audit event's."""
    by_view: dict[str, list[str]] = {}
    used = bundle.used
    for view, feature, column in read_columns(bundle):
        if column in used:
            by_view.setdefault(view, []).append(feature)
    namespace = job_namespace(project)
    inputs = [
        {
            "namespace": namespace,
            "name": view,
            "facets": {"schema": _facet("SchemaDatasetFacet", fields=[{"name": each} for each in names])},
        }
        for view, names in by_view.items()
    ]
    return {
        **_head("RunEvent", time),
        "eventType": "COMPLETE",
        "run": {"runId": run_id(project, f"audit/{number}")},
        "job": _job(project, f"train/{bundle.name}", "TRAINING"),
        "inputs": inputs,
        "outputs": [_bundle_dataset(project, bundle.name, bundle.digest)],
    }


def endpoint_event(project: str, endpoint: str, bundles: Mapping[Digest, str], time: int) -> Event:
    """What an endpoint answers with since a moment: bundles by digest, with their names."""
    return {
        **_head("JobEvent", time),
        "job": _job(project, f"endpoint/{endpoint}", "SERVING"),
        "inputs": [_bundle_dataset(project, name, digest) for digest, name in bundles.items()],
        "outputs": [{"namespace": job_namespace(project), "name": f"predictions/{endpoint}"}],
    }


def run_id(project: str, what: str) -> str:
    """The id of the run that something is: the same whenever it is told."""
    return str(uuid.uuid5(_RUNS, f"{project}/{what}"))


def _head(kind: str, time: int) -> Event:
    return {"eventTime": format_timestamp(time), "producer": PRODUCER, "schemaURL": f"{SPECIFICATION}#/$defs/{kind}"}


def _facet(kind: str, **content: Any) -> dict[str, Any]:
    url = f"{FACETS}/{_VERSIONS[kind]}/{kind}.json#/$defs/{kind}"
    return {"_producer": PRODUCER, "_schemaURL": url, **content}


def _job(project: str, name: str, kind: str, description: str = "") -> dict[str, Any]:
    processing = "STREAMING" if kind == "SERVING" else "BATCH"
    facets = {"jobType": _facet("JobTypeJobFacet", processingType=processing, integration="SKEWLESS", jobType=kind)}
    if description:
        facets["documentation"] = _facet("DocumentationJobFacet", description=description)
    return {"namespace": job_namespace(project), "name": name, "facets": facets}


def _view_dataset(project: str, view: ViewMetadata) -> dict[str, Any]:
    keys = [{"name": name, "type": kind, "description": "join key"} for name, kind in view.join_keys]
    facets = {"schema": _facet("SchemaDatasetFacet", fields=[*keys, *map(_schema_field, view.features)])}
    if view.description:
        facets["documentation"] = _facet("DocumentationDatasetFacet", description=view.description)
    if view.owner:
        facets["ownership"] = _facet("OwnershipDatasetFacet", owners=[{"name": view.owner, "type": "OWNER"}])
    tags = [_tag(name, text) for name, text in sorted(view.tags.items())]
    tags += [_tag(name, text, each.name) for each in view.features for name, text in sorted(each.tags.items())]
    if tags:
        facets["tags"] = _facet("TagsDatasetFacet", tags=tags)
    return {"namespace": job_namespace(project), "name": view.name, "facets": facets}


def _schema_field(feature: FeatureMetadata) -> dict[str, str]:
    field = {"name": feature.name, "type": feature.feast_type}
    return {**field, "description": feature.description} if feature.description else field


def _tag(name: str, text: str, field: str = "") -> dict[str, str]:
    return {"key": name, "value": text, "source": "FEAST", **({"field": field} if field else {})}


def _column_lineage(project: str, view: ViewMetadata) -> dict[str, Any]:
    """Which column of its source each feature is; nothing for a view without a source."""
    if view.source is None:
        return {}
    namespace, table = _table(project, view.source)
    renamed = {new: old for old, new in view.source.field_mapping}
    same = [{"type": "DIRECT", "subtype": "IDENTITY"}]
    fields = {
        name: {
            "inputFields": [
                {"namespace": namespace, "name": table, "field": renamed.get(name, name), "transformations": same}
            ]
        }
        for name in [*(key for key, _ in view.join_keys), *(each.name for each in view.features)]
    }
    return {"columnLineage": _facet("ColumnLineageDatasetFacet", fields=fields)}


def _source_dataset(project: str, source: SourceMetadata) -> dict[str, Any]:
    namespace, name = _table(project, source)
    facets = {}
    if source.format:
        layer = urlsplit(source.path).scheme or "file"
        facets["storage"] = _facet("StorageDatasetFacet", storageLayer=layer, fileFormat=source.format)
    if source.description:
        facets["documentation"] = _facet("DocumentationDatasetFacet", description=source.description)
    return {"namespace": namespace, "name": name, "facets": facets}


def _table(project: str, source: SourceMetadata) -> tuple[str, str]:
    """Namespace and name of a source: of a file by OpenLineage's rules of naming, else by its own name."""
    if not source.path:
        return job_namespace(project), source.name
    parts = urlsplit(source.path)
    if parts.scheme and parts.netloc:
        return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
    return "file", source.path


def _bundle_dataset(project: str, name: str, digest: Digest) -> dict[str, Any]:
    version = _facet("DatasetVersionDatasetFacet", datasetVersion=digest)
    return {"namespace": job_namespace(project), "name": f"bundle/{name}", "facets": {"version": version}}
