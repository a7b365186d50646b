"""A feature contract compiled into reads: what to ask Redis for, and how to turn the answers into columns.

Per request only values are looked at: keys are built from templates, fields and decoders are resolved here once.

    keys:      {join key: Column (rows,)}
    commands:  one per distinct entity hash  (views that share an entity share a read)
    replies:   per command, raw bytes per field
    frame:     {view__feature: Column (rows,)} with a status and an event time for each value
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, Policy, ViewRead, column_name
from skewless.features.decoding import Block, DecodedRead, Group, Layout, Source, Span, decode_replies, read_only
from skewless.features.online_store import Reply
from skewless.features.redis_layout import HashCommand, KeyTemplate, feature_field, timestamp_field
from skewless.features.value_codec import block_decoder

HashSizes = Mapping[tuple[str, ...], int]
"""How many fields a hash has, by the stored names of its join keys in order; absent where that is not known."""


@dataclass(slots=True)
class PreparedRead:
    """The reads of one request, each entity asked for once. `decode` needs their replies in the same order.

    Not frozen, because making it would take three times as long, and one is made for every read.
    """

    rows: int
    keys: list[bytes]
    commands: list[bytes]
    """`commands[i]` reads the hash under `keys[i]`."""
    cacheable: int
    """The first so many commands read only views that may be kept near."""
    _layout: Layout
    _spans: list[Span]
    """Per group, which of the commands are its, and whose rows they answer for."""

    def nothing_stored(self) -> list[Reply]:
        """The replies of a store that has none of these entities."""
        replies: list[Reply] = []
        for group, span in zip(self._layout.groups, self._spans, strict=True):
            empty: list[bytes | None] = [] if group.command.whole else [None] * len(group.command.fields)
            replies += [empty] * span.hashes
        return replies

    def decode(
        self, replies: Sequence[Reply], as_of: int | NDArray[np.int64], near: Sequence[bool] | None = None
    ) -> DecodedRead:
        """Columns, statuses and event times at `as_of` (µs): one moment, or one per row (rows,).

        `near` says which replies came from the near cache. What a policy rejects is told in the result and raised
        when rows are taken from it.
        """
        return decode_replies(self._layout, self.rows, self._spans, replies, as_of, near)


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A contract's reads, compiled once per bundle."""

    _layout: Layout
    _cacheable_groups: int
    repeats: bool
    """Whether one read may hold a command twice: a view under two names, for two entities that may be the same."""
    key_names: tuple[str, ...]
    """The join keys that it needs."""

    @classmethod
    def compile(cls, contract: FeatureContract, hash_sizes: HashSizes | None = None) -> "ReadPlan":
        """The plan of a contract. `hash_sizes` lets it choose the cheaper command.

        Raises InvalidDefinition where two features would share a hash field or a column name, or where a key has no
        serialization.
        """
        by_hash: dict[tuple[bool, tuple[JoinKey, ...]], list[ViewRead]] = {}
        for view in contract.views:
            by_hash.setdefault((not view.near_cache, view.join_keys), []).append(view)
        _refuse_ambiguous(contract)
        ordered = sorted(by_hash.items(), key=lambda item: item[0][0])
        drafts = [_GroupDraft(keys, views) for (_, keys), views in ordered]
        groups = tuple(draft.group(contract.project, hash_sizes or {}) for draft in drafts)
        layout = _lay_out(drafts, groups)
        asked = [(draft.stored_names, group.command) for draft, group in zip(drafts, groups, strict=True)]
        repeats = len(set(asked)) < len(asked)
        cacheable = sum(1 for (distant, _), _ in ordered if not distant)
        key_names = dict.fromkeys(name for group in groups for name in group.template.names)
        return cls(layout, cacheable, repeats, tuple(key_names))

    def prepare(self, keys: Mapping[str, Column], rows: int) -> PreparedRead:
        """The reads for `rows` entities given as columns by join-key name.

        A row with a null among an entity's join keys has no such entity.
        """
        all_keys: list[bytes] = []
        commands: list[bytes] = []
        spans: list[Span] = []
        cacheable = 0
        for number, group in enumerate(self._layout.groups):
            entities, hash_of_row, absent = _distinct_entities(group.template.names, keys, rows)
            group_keys = group.template.keys(entities)
            pack = group.command.pack
            spans.append(Span(len(all_keys), len(group_keys), hash_of_row, absent))
            all_keys += group_keys
            commands += [pack(key) for key in group_keys]
            if number < self._cacheable_groups:
                cacheable += len(group_keys)
        return PreparedRead(rows, all_keys, commands, cacheable, self._layout, spans)


def _distinct_entities(
    names: tuple[str, ...], keys: Mapping[str, Column], rows: int
) -> tuple[Sequence[object], NDArray[np.intp] | None, bool]:
    """Each entity once in order of first use, each row's place among them, whether rows have none; see `Span`."""
    if not names:
        return [()] * min(rows, 1), None if rows < 2 else np.zeros(rows, dtype=np.intp), False
    columns = [keys[name] for name in names]
    listed: list[Any] = columns[0].values.tolist()
    if len(columns) > 1:
        listed = list(zip(listed, *(column.values.tolist() for column in columns[1:]), strict=True))
    if all(False not in column.valid.tolist() for column in columns):
        distinct = dict.fromkeys(listed)
        if len(distinct) == rows:
            return listed, None, False
        places = {entity: place for place, entity in enumerate(distinct)}
        return list(distinct), np.array([places[entity] for entity in listed], dtype=np.intp), False
    valid = np.logical_and.reduce([column.valid for column in columns]).tolist()
    distinct = dict.fromkeys(entity for entity, known in zip(listed, valid, strict=True) if known)
    places = {entity: place for place, entity in enumerate(distinct)}
    nobody = len(distinct)
    index = [places[entity] if known else nobody for entity, known in zip(listed, valid, strict=True)]
    return list(distinct), np.array(index, dtype=np.intp), True


def _refuse_ambiguous(contract: FeatureContract) -> None:
    seen: set[str] = set()
    for view in contract.views:
        for feature in view.features:
            name = column_name(view.name, feature.name)
            if name in seen:
                raise InvalidDefinition(
                    f"column `{name}` is read twice in project `{contract.project}`",
                    hint="use the view once, or under another name: `view.with_name(…)`",
                )
            seen.add(name)


class _GroupDraft:
    """Views that share one hash, while their fields are gathered."""

    def __init__(self, join_keys: tuple[JoinKey, ...], views: list[ViewRead]) -> None:
        self.join_keys = join_keys
        self.stored_names = tuple(sorted(key.key_name for key in join_keys))
        self.views = views
        self.positions: dict[bytes, int] = {}
        """Where the bytes of a hash field are in the answer."""
        owners: dict[bytes, str] = {}
        for view in views:
            self.positions.setdefault(timestamp_field(view.field_name), len(self.positions))
            for feature in view.features:
                name = f"{view.field_name}:{feature.name}"
                field = feature_field(view.field_name, feature.name)
                if owners.setdefault(field, name) != name:
                    raise InvalidDefinition(
                        f"features `{owners[field]}` and `{name}` share the Redis hash field {field.hex()}; "
                        "one would overwrite the other",
                        hint="rename one of them",
                    )
                self.positions.setdefault(field, len(self.positions))

    def group(self, project: str, hash_sizes: HashSizes) -> Group:
        """The compiled group."""
        command = HashCommand.compile(tuple(self.positions), hash_size=hash_sizes.get(self.stored_names, 0))
        return Group(
            template=KeyTemplate.compile(self.join_keys, project),
            command=command,
            times=Source.of(0, tuple(self.positions[timestamp_field(view.field_name)] for view in self.views)),
        )


def _lay_out(drafts: list[_GroupDraft], groups: tuple[Group, ...]) -> Layout:
    """Features of one stored type side by side, whatever group they come from; a group's own are neighbours."""
    planned: dict[tuple[Dtype, str], list[tuple[int, int, int, str, FeatureField]]] = {}
    views: list[ViewRead] = []
    for number, draft in enumerate(drafts):
        for view in draft.views:
            for feature in view.features:
                position = draft.positions[feature_field(view.field_name, feature.name)]
                entry = (number, position, len(views), column_name(view.name, feature.name), feature)
                planned.setdefault((feature.dtype, feature.feast_type), []).append(entry)
            views.append(view)
    blocks = []
    for (dtype, feast_type), entries in planned.items():
        sources = [
            Source.of(number, tuple(position for group, position, *_ in entries if group == number))
            for number in dict.fromkeys(group for group, *_ in entries)
        ]
        blocks.append(Block(dtype, block_decoder(dtype, feast_type), tuple(sources), len(entries)))
    flat = [entry for entries in planned.values() for entry in entries]
    starts = list(accumulate((len(group.command.fields) for group in groups), initial=0))
    in_order = [
        starts[number] + position for number, group in enumerate(groups) for position in group.times.positions
    ] + [starts[number] + position for number, position, *_ in flat]
    return Layout(
        takes_whole_hashes=any(group.command.whole for group in groups),
        pick_all=Source.of(0, tuple(in_order)).pick if in_order else tuple,
        one_row_valid=tuple(read_only(np.ones((block.lines, 1), dtype=np.bool_)) for block in blocks),
        one_row_ok=read_only(np.zeros((len(flat), 1), dtype=np.uint8)),
        groups=groups,
        blocks=tuple(blocks),
        columns=ColumnLayout(
            tuple((dtype, tuple(entry[3] for entry in entries)) for (dtype, _), entries in planned.items())
        ),
        feature_line={name: line for line, (*_, name, _) in enumerate(flat)},
        view_line={view.name: line for line, view in enumerate(views)},
        view_of_feature=np.array([view for _, _, view, *_ in flat], dtype=np.intp),
        ttl_us=np.array([view.ttl_us for view in views], dtype=np.int64),
        group_of_view=tuple(number for number, draft in enumerate(drafts) for _ in draft.views),
        policies=tuple(
            (line, feature)
            for line, (*_, feature) in enumerate(flat)
            if (feature.on_missing, feature.on_stale) != (Policy(), Policy())
        ),
        feature_names=tuple(entry[3] for entry in flat),
    )
