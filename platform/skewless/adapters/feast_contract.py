"""Feature contracts out of a Feast registry: a feature service with all that it names, as plain data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skewless.adapters.feast_definitions import Registered
from skewless.adapters.feast_import import OnDemandFeatureView
from skewless.canonical_json import Digest, digest
from skewless.dtypes import FEAST_ALIASES, from_feast
from skewless.errors import InvalidDefinition
from skewless.features.contract import (
    FeatureContract,
    FeatureField,
    JoinKey,
    LogMark,
    Mode,
    OnDemandView,
    Policy,
    RequestField,
    ViewRead,
    column_name,
)
from skewless.features.definition_metadata import PERSONAL, read_flag
from skewless.features.plan import ReadPlan

NEAR_CACHE_TAG = "skewless.near_cache"
"""A view tagged `"true"` may be kept near by gateways."""

LOG_TAG = "skewless.log"
"""An entity, or a field of a view or request source, tagged `hash` or `omit` is not kept as it is in the prediction
log; one that is tagged as personal, and not with this, is hashed. Feast takes no tags on fields of on-demand views; the
view itself is tagged `skewless.log.<feature>` for them."""

FUNCTION_TAG = "skewless.function"
DIGEST_TAG = "skewless.source_digest"
"""Tags of an on-demand view: `module:name` of its function, and what pins the function's source."""

Policies = Mapping[str, tuple[Policy, Policy]]


@dataclass(slots=True)
class Use:
    """One stored view under one name, and the fields that are read of it, by name."""

    view: Any
    projection: Any
    fields: dict[str, Any] = field(default_factory=dict)


def compile_contract(
    registered: Registered,
    feature_service: str,
    *,
    request_fields: tuple[RequestField, ...] = (),
    nullable_keys: frozenset[str] = frozenset(),
    policies: Policies | None = None,
) -> FeatureContract:
    """The contract of a registered feature service, in the service's order.

    Features that only on-demand views read come behind the service's own. Request sources add their fields behind
    `request_fields`. Raises NotFound for an unknown service, InvalidDefinition for what cannot be read.
    """
    uses, computed = used_views(registered, feature_service)
    views = tuple(_view_read(registered, use, nullable_keys, policies or {}) for use in uses.values())
    on_demand = tuple(_on_demand_view(registered, view, projection) for view, projection in computed)
    _refuse_unknown(views, nullable_keys, policies or {})
    contract = FeatureContract(
        project=registered.project,
        views=views,
        request_fields=_with_request_sources(request_fields, [view for view, _ in computed]),
        definitions_digest=_definitions_digest(registered, uses, on_demand, [view for view, _ in computed]),
        on_demand=on_demand,
    )
    _refuse_ambiguous(contract, f"feature service `{feature_service}`")
    ReadPlan.compile(contract)
    return contract


def used_views(registered: Registered, feature_service: str) -> tuple[dict[str, Use], list[tuple[Any, Any]]]:
    """Stored views of a service by the name they are used under, and its on-demand views with their projections."""
    uses: dict[str, Use] = {}
    computed = []
    for projection in registered.service(feature_service).feature_view_projections:
        view = registered.view(projection.name, projection.version_tag)
        if isinstance(view, OnDemandFeatureView):
            computed.append((view, projection))
        else:
            _use(uses, view, projection)
    for view, _ in computed:
        _use_sources(uses, registered, view)
    return uses, computed


def function_contract(registered: Registered, view: Any) -> FeatureContract:
    """A contract of one on-demand view alone, with which its function can be tried before it is registered."""
    uses: dict[str, Use] = {}
    _use_sources(uses, registered, view)
    contract = FeatureContract(
        project=registered.project,
        views=tuple(_view_read(registered, use, frozenset(), {}) for use in uses.values()),
        request_fields=_with_request_sources((), [view]),
        definitions_digest=digest(None),
        on_demand=(_on_demand_view(registered, view, view.projection),),
    )
    _refuse_ambiguous(contract, f"on-demand view `{view.name}`")
    return contract


def pinned_version(name: str) -> int | None:
    """The version that a view's name in a contract pins; None where it is the current one.

    >>> pinned_version("weather@v2"), pinned_version("weather")
    (2, None)
    """
    _, at, version = name.rpartition("@v")
    return int(version) if at and version.isdigit() else None


def stored_read(registered: Registered, read: ViewRead) -> ViewRead:
    """All that the store keeps of the view that a contract reads: every feature, under the view's own join keys."""
    view = registered.view(read.view, pinned_version(read.name))
    whole = stored_view_read(registered, Use(view, view.projection))
    return replace(whole, ttl_us=read.ttl_us, alias=read.alias, stored_name=read.stored_name)


def stored_view_read(registered: Registered, use: Use) -> ViewRead:
    """All that the store keeps of a view, in the version that it is used in: every feature, under its own join keys."""
    view, projection = use.view, use.projection
    name, stored_name = str(view.name), registered.stored_name(view, projection)
    join_keys = stored_join_keys(registered, view)
    # Feast lists a stream view's join keys among its features as well.
    features = [each for each in view.features if each.name not in {key.name for key in join_keys}]
    return ViewRead(
        view=name,
        join_keys=join_keys,
        ttl_us=0 if view.ttl is None else int(view.ttl.total_seconds() * 1_000_000),
        features=tuple(_feature_field(each, name) for each in features),
        stored_name="" if stored_name == name else stored_name,
    )


def stored_join_keys(registered: Registered, view: Any) -> tuple[JoinKey, ...]:
    """A view's own join keys, as stored keys have them."""
    return _join_keys(registered, view, {}, frozenset())


def _use(uses: dict[str, Use], view: Any, projection: Any) -> None:
    """Read a projection's features too. Feast ignores the join-key map of a second use under the same name."""
    name = str(projection.name_to_use())
    use = uses.setdefault(name, Use(view, projection))
    if (use.projection.name, use.projection.join_key_map) != (projection.name, projection.join_key_map):
        raise InvalidDefinition(
            f"`{name}` is used twice, for different views or with different join-key maps",
            hint="give each use a name of its own: `view.with_join_key_map(…).with_name(…)`",
        )
    use.fields.update({str(each.name): each for each in projection.features if str(each.name) not in use.fields})


def _use_sources(uses: dict[str, Use], registered: Registered, view: Any) -> None:
    for projection in _sources(view):
        source = registered.view(projection.name, projection.version_tag)
        if isinstance(source, OnDemandFeatureView):
            raise InvalidDefinition(
                f"on-demand view `{view.name}` reads on-demand view `{source.name}`; it can read stored views only",
                hint="compute both in one function",
            )
        _use(uses, source, projection)


def _sources(view: Any) -> list[Any]:
    """Projections of an on-demand view's sources, in an order of their own: the registry keeps none."""
    return [projection for _, projection in sorted(view.source_feature_view_projections.items())]


def _view_read(registered: Registered, use: Use, nullable_keys: frozenset[str], policies: Policies) -> ViewRead:
    view, projection = use.view, use.projection
    name, alias = str(view.name), str(projection.name_to_use())
    stored_name = registered.stored_name(view, projection)
    _refuse_marks_elsewhere(view)
    marks = _feature_marks(view)
    gone = sorted(set(use.fields) - set(marks))
    if gone:
        raise InvalidDefinition(
            f"feature `{gone[0]}` is read of feature view `{name}`, which has it no more. "
            f"Features: {', '.join(f'`{each}`' for each in marks)}",
            hint="leave it out of the feature service, or give it back to the view",
        )
    return ViewRead(
        view=name,
        join_keys=_join_keys(registered, view, projection.join_key_map, nullable_keys),
        ttl_us=0 if view.ttl is None else int(view.ttl.total_seconds() * 1_000_000),
        features=tuple(
            _feature_field(
                each,
                alias,
                policies.get(column_name(alias, each.name), (Policy(), Policy())),
                marks.get(str(each.name), LogMark.KEEP),
            )
            for each in use.fields.values()
        ),
        alias="" if alias == name else alias,
        stored_name="" if stored_name == name else stored_name,
        near_cache=_near_cache(view),
    )


def _join_keys(
    registered: Registered, view: Any, renamed: Mapping[str, str], nullable_keys: frozenset[str]
) -> tuple[JoinKey, ...]:
    types = registered.join_keys(view)
    unknown = sorted(set(renamed) - set(types))
    if unknown:
        raise InvalidDefinition(
            f"the join-key map of feature view `{view.name}` renames `{unknown[0]}`, which is none of its join keys: "
            f"{', '.join(f'`{each}`' for each in types) or 'it has none'}"
        )
    keys = []
    tags = registered.key_tags(view)
    for stored, feast_type in types.items():
        name = str(renamed.get(stored, stored))
        dtype = from_feast(feast_type, where=f"feature view `{view.name}`, entity `{stored}`")
        mark = _mark(tags.get(stored, {}), where=f"the entity with join key `{stored}`")
        keys.append(JoinKey(name, dtype, name in nullable_keys, "" if name == stored else stored, mark))
    return tuple(sorted(keys, key=lambda key: key.name))


def _feature_field(
    declared: Any,
    view: str,
    policies: tuple[Policy, Policy] = (Policy(), Policy()),
    mark: LogMark = LogMark.KEEP,
) -> FeatureField:
    feast_type = str(declared.dtype)
    dtype = from_feast(feast_type, where=f"feature `{view}:{declared.name}`")
    alias = feast_type if feast_type in FEAST_ALIASES else ""
    return FeatureField(str(declared.name), dtype, *policies, feast_type=alias, log=mark)


def _feature_marks(view: Any) -> dict[str, LogMark]:
    """Marks of a view's features by name: the view's own fields say it, not a service's older copies of them."""
    return {str(each.name): _mark(each.tags, where=f"feature `{view.name}:{each.name}`") for each in view.features}


def _mark(tags: Mapping[str, str], *, where: str) -> LogMark:
    # What is a person's is kept as a keyed hash unless somebody said how: equal values stay equal, so that a person's
    # predictions are found to be deleted, and nobody without the key can read or try out a value.
    usual = LogMark.HASH if read_flag(tags.get(PERSONAL, "")) else LogMark.KEEP
    text = tags.get(LOG_TAG, usual.value)
    try:
        return LogMark(text)
    except ValueError as error:
        allowed = ", ".join(f"`{mark}`" for mark in LogMark)
        raise InvalidDefinition(f"{where} has the tag {LOG_TAG}={text!r}", hint=f"allowed: {allowed}") from error


def _computed_marks(view: Any) -> dict[str, LogMark]:
    """As `_feature_marks`, of an on-demand view: Feast refuses tags on its fields, so the view has them."""
    marks = {}
    for each in view.features:
        where = f"on-demand view `{view.name}`, feature `{each.name}`,"
        marks[str(each.name)] = _mark({LOG_TAG: view.tags.get(_tag_of(each.name), LogMark.KEEP.value)}, where=where)
    return marks


def _tag_of(feature: str) -> str:
    return f"{LOG_TAG}.{feature}"


def _refuse_marks_elsewhere(view: Any, allowed: Sequence[str] = ()) -> None:
    """A mark where none is looked for would leave in clear what somebody wanted hidden."""
    wrong = [tag for tag in view.tags if tag.startswith(LOG_TAG) and tag not in allowed]
    if wrong:
        raise InvalidDefinition(
            f"view `{view.name}` has the tag {wrong[0]}, which stands there for nothing",
            hint=f"allowed: {', '.join(allowed)}" if allowed else f"tag entities and fields with {LOG_TAG}",
        )
    for column in getattr(view, "entity_columns", ()):
        if LOG_TAG in column.tags:
            raise InvalidDefinition(
                f"join key `{column.name}` has the tag {LOG_TAG} in feature view `{view.name}`",
                hint="tag its entity, which holds for all views",
            )


def _near_cache(view: Any) -> bool:
    text = view.tags.get(NEAR_CACHE_TAG, "false")
    if text not in ("true", "false"):
        raise InvalidDefinition(
            f"feature view `{view.name}` has the tag {NEAR_CACHE_TAG}={text!r}", hint="allowed: `true`, `false`"
        )
    return bool(text == "true")


# --- on-demand views -------------------------------------------------------------------------------------------------


def _on_demand_view(registered: Registered, view: Any, projection: Any) -> OnDemandView:
    for tag in (FUNCTION_TAG, DIGEST_TAG):
        if tag not in view.tags:
            raise InvalidDefinition(
                f"on-demand view `{view.name}` is registered without the name of its function",
                hint="register it with `skewless apply`, not with `feast apply`",
            )
    name = str(projection.name_to_use())
    _refuse_marks_elsewhere(view, [_tag_of(each.name) for each in view.features])
    marks = _computed_marks(view)
    return OnDemandView(
        name=name,
        mode=Mode(view.mode),
        function=view.tags[FUNCTION_TAG],
        source_digest=Digest(view.tags[DIGEST_TAG]),
        inputs=_function_inputs(registered, view),
        features=tuple(
            _feature_field(each, name, mark=marks.get(str(each.name), LogMark.KEEP)) for each in projection.features
        ),
    )


def _function_inputs(registered: Registered, view: Any) -> tuple[tuple[str, str], ...]:
    """(name that the function knows, contract column): as Feast names them, and a view's alias works as well.

    Every feature of a source has its short name and `view__feature`; a short name that two sources share is left out,
    because Feast gives it to either. Request fields and the sources' join keys have their own names.
    """
    inputs: dict[str, str] = {each.name: each.name for each in _request_sources(view)}
    short: dict[str, set[str]] = {}
    for projection in _sources(view):
        alias = str(projection.name_to_use())
        for feature in projection.features:
            column = column_name(alias, str(feature.name))
            inputs[column_name(str(projection.name), str(feature.name))] = inputs[column] = column
            short.setdefault(str(feature.name), set()).add(column)
        source = registered.view(projection.name, projection.version_tag)
        for key in _join_keys(registered, source, projection.join_key_map, frozenset()):
            inputs.setdefault(key.name, key.name)
    for feature_name, columns in short.items():
        if len(columns) == 1:
            inputs.setdefault(feature_name, columns.pop())
    return tuple(inputs.items())


def _request_sources(view: Any) -> list[RequestField]:
    return [
        RequestField(
            str(each.name),
            from_feast(str(each.dtype), where=f"request field `{each.name}` of `{view.name}`"),
            log=_mark(each.tags, where=f"request field `{each.name}` of `{view.name}`"),
        )
        for _, source in sorted(view.source_request_sources.items())
        for each in source.schema
    ]


def _with_request_sources(given: tuple[RequestField, ...], computed: list[Any]) -> tuple[RequestField, ...]:
    """The fields that a model declares, then those that only request sources declare."""
    fields = {each.name: each for each in given}
    for view in computed:
        for each in _request_sources(view):
            known = fields.setdefault(each.name, each)
            if known.dtype is not each.dtype:
                raise InvalidDefinition(
                    f"request field `{each.name}` is `{known.dtype}`, and on-demand view `{view.name}` takes it as "
                    f"`{each.dtype}`",
                    hint="declare it with one dtype everywhere",
                )
            fields[each.name] = replace(known, log=_stricter(known, each, view))
    return tuple(fields.values())


def _stricter(known: RequestField, other: RequestField, view: Any) -> LogMark:
    """The mark of a field that is declared twice."""
    if LogMark.KEEP in (known.log, other.log) or known.log is other.log:
        return other.log if known.log is LogMark.KEEP else known.log
    raise InvalidDefinition(
        f"request field `{known.name}` is marked `{known.log}` for the prediction log, and on-demand view "
        f"`{view.name}` marks it `{other.log}`",
        hint=f"tag it with one {LOG_TAG} everywhere",
    )


# --- checks and digests ----------------------------------------------------------------------------------------------


def _refuse_unknown(views: tuple[ViewRead, ...], nullable_keys: frozenset[str], policies: Policies) -> None:
    keys = {key.name for view in views for key in view.join_keys}
    columns = {column_name(view.name, feature.name) for view in views for feature in view.features}
    for kind, named, known in (("nullable key", nullable_keys, keys), ("policy", frozenset(policies), columns)):
        unknown = sorted(named - known)
        if unknown:
            raise InvalidDefinition(
                f"{kind} `{unknown[0]}` names nothing that the feature service reads. Known: {', '.join(sorted(known))}"
            )


def _refuse_ambiguous(contract: FeatureContract, where: str) -> None:
    dtypes: dict[str, JoinKey] = {}
    for view in contract.views:
        for key in view.join_keys:
            if dtypes.setdefault(key.name, key).dtype is not key.dtype:
                raise InvalidDefinition(
                    f"join key `{key.name}` is `{dtypes[key.name].dtype}` in one view of {where} and `{key.dtype}` in "
                    f"`{view.name}`",
                    hint="declare one entity for both, or rename one key with `with_join_key_map`",
                )
            if dtypes[key.name].log is not key.log:
                raise InvalidDefinition(
                    f"join key `{key.name}` is marked `{dtypes[key.name].log}` for the prediction log in one view of "
                    f"{where} and `{key.log}` in `{view.name}`",
                    hint=f"give the entities of both one {LOG_TAG} tag",
                )
    seen: set[str] = set()
    for name, _ in contract.columns:
        if name in seen:
            raise InvalidDefinition(
                f"{where} has more than one column `{name}` among its join keys, request fields and features",
                hint="rename one of them, or use a view under another name: `view.with_name(…)`",
            )
        seen.add(name)


def _definitions_digest(
    registered: Registered, uses: Mapping[str, Use], on_demand: tuple[OnDemandView, ...], computed: list[Any]
) -> Digest:
    definitions = [_definition(registered, use) for use in uses.values()]
    definitions += [_computed_definition(view) for view in on_demand]
    fields = _with_request_sources((), computed)
    if marked := _marked([(field.name, field.log) for field in fields]):
        definitions.append({"log": marked})
    return digest(definitions)


def _marked(marks: Iterable[tuple[str, LogMark]]) -> list[list[str]]:
    return sorted([name, mark.value] for name, mark in marks if mark is not LogMark.KEEP)


def _definition(registered: Registered, use: Use) -> dict[str, Any]:
    """Everything about a view that changes what its features mean; paths and descriptions do not."""
    view, projection, source = use.view, use.projection, use.view.batch_source
    data: dict[str, Any] = {
        "view": view.name,
        "entities": [list(each) for each in registered.join_keys(view).items()],
        "features": [[each.name, str(each.dtype)] for each in use.fields.values()],
        "ttl_s": 0 if view.ttl is None else view.ttl.total_seconds(),
        "event_time": source.timestamp_field if source else "",
        "created_time": (source.created_timestamp_column or "") if source else "",
        "field_mapping": sorted(source.field_mapping.items()) if source else [],
    }
    alias, stored_name = str(projection.name_to_use()), registered.stored_name(view, projection)
    # What has its default is left out, so that digests of plain services stay theirs.
    if alias != view.name:
        data["alias"] = alias
    if stored_name != view.name:
        data["stored_name"] = stored_name
    if projection.join_key_map:
        data["join_key_map"] = sorted(projection.join_key_map.items())
    marks = _feature_marks(view)
    keys = _join_keys(registered, view, {}, frozenset())
    if marked := _marked([(key.name, key.log) for key in keys] + [(name, marks[name]) for name in use.fields]):
        data["log"] = marked
    return data


def _computed_definition(view: OnDemandView) -> dict[str, Any]:
    data: dict[str, Any] = {
        "on_demand": view.name,
        "mode": view.mode.value,
        "function": view.function,
        "source_digest": view.source_digest,
        "inputs": [list(each) for each in view.inputs],
        "features": [[each.name, each.dtype.value] for each in view.features],
    }
    if marked := _marked((each.name, each.log) for each in view.features):
        data["log"] = marked
    return data
