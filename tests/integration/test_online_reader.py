"""The public readers on a real Valkey: what they take, what they answer and how they refuse."""

import asyncio
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import redis

from harness.bundles import STATION, Hashes, contract, flights_at, merged, stored
from harness.servers import ValkeyServer
from skewless import canonical_json, online
from skewless.adapters.arrow_columns import table_from_columns
from skewless.dtypes import ELEMENTS, TABLE, Dtype, column_of
from skewless.errors import (
    BundleRefused,
    InvalidDefinition,
    InvalidRequest,
    InvalidSettings,
    LimitExceeded,
    NotFound,
    Rejected,
    Unavailable,
)
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import (
    FeatureContract,
    FeatureField,
    JoinKey,
    Mode,
    OnDemandView,
    RequestField,
    ViewRead,
)
from skewless.features.frame import FeatureFrame
from skewless.features.function_source import digest_of
from skewless.features.visibility import Status
from skewless.registry.database import engine, upgrade
from skewless.registry.snapshots import FeatureSnapshots
from skewless.stack.ports import free_ports
from skewless.timestamps import HOUR_US, SECOND_US, from_micros

NOW = 1_367_411_400 * SECOND_US
AT = from_micros(NOW)
KEYS: dict[str, list[Any]] = {"origin": ["JFK", "LGA", None], "tailnum": ["N1", "N2", "N1"], "station": [7, 8, 7]}
OWN_PROJECT = "demo"
COMPUTED = "skewless_test_online_computed"


@pytest.fixture(scope="module")
def url(valkey_server: ValkeyServer) -> Iterator[str]:
    """A database of this module's own, with the flights' features in it."""
    client = redis.Redis(host=valkey_server.host, port=valkey_server.port, db=9)
    client.flushdb()
    _write(client, flights_at(NOW))
    yield f"{valkey_server.url}/9"
    client.flushdb()
    client.close()


def _write(client: "redis.Redis", hashes: Hashes) -> None:
    for key, fields in hashes.items():
        client.hset(key, mapping=dict(fields))  # type: ignore[arg-type]  # the client takes bytes, its stubs want str


def test_three_lines_read_values_statuses_and_ages(url: str, tmp_path: Path) -> None:
    (tmp_path / "contract.json").write_bytes(canonical_json.encode(contract().to_json()))
    with online.FeatureReader(url, tmp_path / "contract.json") as reader:
        table = reader.read(KEYS, as_of=AT)
    assert len(table) == 3
    assert table.to_dict() == {
        **KEYS,
        "weather__temp": [21.5, None, None],
        "weather__wind_dir": [270, None, 90],
        "aircraft__seats": [180, None, 180],
        "noise__level": [0.5, None, 0.5],
    }
    assert table.statuses["weather__temp"] == [Status.OK, Status.STALE, Status.MISSING]
    assert table.statuses["weather__wind_dir"] == [Status.OK, Status.STALE, Status.DEFAULT]
    np.testing.assert_equal(table.ages_s["weather"], [3_600.0, 18_000.0, np.nan])
    assert (table.near, table.faults) == ({}, ())


def test_every_form_of_the_keys_asks_the_same(url: str) -> None:
    frame = pd.DataFrame({"origin": ["JFK", "LGA"], "tailnum": ["N1", pd.NA], "station": [7, 8]})
    forms: list[dict[str, Any]] = [
        {"origin": ["JFK", "LGA"], "tailnum": ("N1", None), "station": [7, 8]},
        {"origin": np.array(["JFK", "LGA"]), "tailnum": ["N1", float("nan")], "station": np.array([7, 8], np.int32)},
        {name: frame[name] for name in KEYS},
        {
            "origin": pa.array(["JFK", "LGA"]),
            "tailnum": pa.array(["N1", None]),
            "station": pa.chunked_array([[7], [8]]),
        },
    ]
    with online.FeatureReader(url, contract()) as reader:
        answers = [reader.read(form, as_of=AT.isoformat()).to_dict() for form in forms]
    assert answers[1:] == answers[:1] * 3


def test_arrow_numpy_and_pandas_say_the_same_and_keep_integers_whole(url: str) -> None:
    with online.FeatureReader(url, contract()) as reader:
        table = reader.read(KEYS, as_of=AT)
    arrow, numpy, frame = table.to_arrow(), table.to_numpy(), table.to_pandas()
    assert tuple(arrow.column_names) == tuple(numpy) == tuple(frame.columns) == table.columns
    assert arrow.to_pydict() == table.to_dict()
    assert {name: values.tolist() for name, values in numpy.items()} == table.to_dict()
    assert {name: [None if pd.isna(x) else x for x in frame[name]] for name in frame} == table.to_dict()
    assert arrow.schema.field("aircraft__seats").type == pa.int64()
    assert str(frame["aircraft__seats"].dtype) == "Int64"
    assert numpy["weather__temp"].dtype == np.float32


def test_a_column_of_nulls_keeps_its_type(url: str) -> None:
    with online.FeatureReader(url, contract()) as reader:
        table = reader.read({"origin": [None], "tailnum": [None], "station": [None]}, as_of=AT)
    types = dict(zip(table.to_arrow().schema.names, table.to_arrow().schema.types, strict=True))
    assert types == {
        "origin": pa.string(),
        "tailnum": pa.string(),
        "station": pa.int64(),
        "weather__temp": pa.float32(),
        "weather__wind_dir": pa.int64(),
        "aircraft__seats": pa.int64(),
        "noise__level": pa.float32(),
    }
    assert table.to_pandas().dtypes.astype(str).to_dict()["origin"] == "string"


def test_no_rows_are_an_empty_table(url: str) -> None:
    with online.FeatureReader(url, contract()) as reader:
        table = reader.read({"origin": [], "tailnum": [], "station": []}, as_of=AT)
    assert (len(table), table.to_arrow().num_rows, len(table.to_pandas())) == (0, 0, 0)
    assert table.to_arrow().schema.field("noise__level").type == pa.float32()


def test_without_a_moment_it_is_now(url: str) -> None:
    with online.FeatureReader(url, contract()) as reader:
        table = reader.read({name: values[:1] for name, values in KEYS.items()})
    assert abs(from_micros(table.as_of) - datetime.now(UTC)) < timedelta(seconds=30)
    assert table.statuses["weather__temp"] == [Status.STALE]
    assert table.statuses["aircraft__seats"] == [Status.OK]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"orogin": ["JFK"]}, "$.keys.orogin"),
        ({"origin": "JFK"}, "$.keys.origin"),
        ({"origin": ["JFK", "LGA"]}, "$.keys.tailnum"),
        ({"origin": [1]}, "$.keys.origin"),
        ({"origin": ["\ud800"]}, "$.keys.origin"),
        ({"station": ["7"]}, "$.keys.station"),
        ({"station": [7.5]}, "$.keys.station"),
        ({"station": [1 << 63]}, "$.keys.station"),
        ({"station": 7}, "$.keys.station"),
        ({"station": np.array(["2013-05-01"], "datetime64[us]")}, "$.keys.station"),
    ],
)
def test_wrong_keys_are_refused_with_their_path(url: str, changes: dict[str, object], path: str) -> None:
    with online.FeatureReader(url, contract()) as reader, pytest.raises(InvalidRequest) as refused:
        reader.read({name: values[:1] for name, values in KEYS.items()} | changes, as_of=AT)
    assert refused.value.path == path
    assert refused.value.allowed


def test_what_is_missing_too_much_or_no_moment_is_refused(url: str) -> None:
    with online.FeatureReader(url, contract()) as reader:
        with pytest.raises(InvalidRequest, match=r"\$\.keys\.tailnum is not given"):
            reader.read({"origin": ["JFK"]}, as_of=AT)
        with pytest.raises(InvalidRequest, match="among the request") as unknown:
            reader.read(KEYS, as_of=AT, request={"distanse": [1.0, 2.0, 3.0]})
        with pytest.raises(InvalidRequest, match="no moment"):
            reader.read(KEYS, as_of="2013-05-01T09:30:00")
        with pytest.raises(InvalidRequest, match="no moment"):
            reader.read(KEYS, as_of=AT.replace(tzinfo=None))
        with pytest.raises(LimitExceeded):
            reader.read({name: values[:1] * 1_001 for name, values in KEYS.items()}, as_of=AT)
    assert unknown.value.hint == "did you mean `distance`?"


def test_a_policy_that_rejects_is_raised_with_the_row(url: str) -> None:
    with (
        online.FeatureReader(url, contract(reject_missing_weather=True)) as reader,
        pytest.raises(Rejected) as refused,
    ):
        reader.read(KEYS, as_of=AT)
    assert refused.value.path == "$.instances[2]"


def test_a_store_that_is_away_and_a_url_that_is_none_say_so() -> None:
    with (
        online.FeatureReader(f"redis://127.0.0.1:{free_ports(1)[0]}", contract()) as reader,
        pytest.raises(Unavailable),
    ):
        reader.read(KEYS, as_of=AT)
    with pytest.raises(InvalidSettings):
        online.FeatureReader("http://127.0.0.1", contract())


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, NotFound), (b"{", InvalidDefinition), (b"[]", InvalidDefinition), (b"{}", InvalidDefinition)],
)
def test_a_file_that_is_no_contract_is_refused(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "contract.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error):
        online.load_features(path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleRefused):
        online.load_features(tmp_path)


def _snapshots(registry: str, *projects: str, read: FeatureContract | None = None) -> None:
    upgrade(registry)
    database = engine(registry)
    snapshots = FeatureSnapshots(database)
    for project in projects:
        compiled = CompiledRegistry(project, {"flights": read or contract()}, {"odd": "it is odd"}, {("origin",): 3})
        snapshots.store(compiled, findings=(), source=compiled.digest, actor="test", reason="test")
    database.dispose()


def test_a_feature_service_is_read_from_its_registry_snapshot(url: str, tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path / 'registry.db'}"
    _snapshots(registry, OWN_PROJECT)
    features = online.registered_features("flights", registry=registry)
    assert (features.contract, dict(features.hash_sizes)) == (contract(), {("origin",): 3})
    with online.FeatureReader(url, features) as whole, online.FeatureReader(url, contract()) as fields:
        assert whole.read(KEYS, as_of=AT).to_dict() == fields.read(KEYS, as_of=AT).to_dict()
    with pytest.raises(NotFound, match="flights"):
        online.registered_features("fligths", registry=registry)
    with pytest.raises(InvalidDefinition, match="it is odd"):
        online.registered_features("odd", registry=registry)


def test_a_project_is_named_where_there_are_several(tmp_path: Path) -> None:
    registry = f"sqlite:///{tmp_path / 'registry.db'}"
    _snapshots(registry)
    with pytest.raises(NotFound, match="registry snapshot"):
        online.registered_features("flights", registry=registry)
    _snapshots(registry, "a", "b")
    with pytest.raises(InvalidRequest, match="2 projects"):
        online.registered_features("flights", registry=registry)
    assert online.registered_features("flights", registry=registry, project="b").contract == contract()


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureContract]:
    """A contract whose one on-demand view is computed by a module on the path."""
    source = 'def per_km(inputs):\n    """Seats for each kilometre."""\n'
    source += "    pairs = zip(inputs['seats'], inputs['distance'], strict=True)\n"
    source += "    return {'seats_per_km': [None if None in pair else pair[0] / pair[1] for pair in pairs]}\n"
    (tmp_path / f"{COMPUTED}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    view = OnDemandView(
        "ratio",
        Mode.PYTHON,
        f"{COMPUTED}:per_km",
        digest_of(f"{COMPUTED}:per_km", import_module),
        (("seats", "aircraft__seats"), ("distance", "distance")),
        (FeatureField("seats_per_km", Dtype.FLOAT64),),
    )
    plain = contract()
    yield FeatureContract(plain.project, plain.views, plain.request_fields, plain.definitions_digest, (view,))
    sys.modules.pop(COMPUTED, None)


def test_on_demand_features_are_computed_from_stored_and_request_values(url: str, computed: FeatureContract) -> None:
    with online.FeatureReader(url, computed) as reader:
        table = reader.read(KEYS, as_of=AT, request={"distance": [90.0, 90.0, None]})
        with pytest.raises(InvalidRequest, match=r"\$\.request\.distance is not given"):
            reader.read(KEYS, as_of=AT)
    assert table.to_dict()["ratio__seats_per_km"] == [2.0, None, None]
    assert table.to_arrow().column("ratio__seats_per_km").to_pylist() == [2.0, None, None]
    assert table.statuses["ratio__seats_per_km"] == [Status.OK, Status.NULL, Status.NULL]


def test_views_without_an_entity_are_read_with_no_keys(valkey_server: ValkeyServer) -> None:
    view = ViewRead("world", (), 0, (FeatureField("mood", Dtype.STRING), FeatureField("since", Dtype.TIMESTAMP)))
    lonely = FeatureContract(OWN_PROJECT, (view,), (), contract().definitions_digest)
    with online.FeatureReader(f"{valkey_server.url}/9", lonely) as reader:
        table = reader.read({}, as_of=AT)
    assert table.to_dict() == {"world__mood": [None], "world__since": [None]}
    assert str(table.to_pandas()["world__since"].dtype) == "datetime64[us, UTC]"
    assert table.to_numpy()["world__since"].dtype == np.dtype("datetime64[us]")


async def test_concurrent_asynchronous_reads_equal_blocking_ones(url: str) -> None:
    with online.FeatureReader(url, contract()) as blocking:
        expected = blocking.read(KEYS, as_of=AT)
    async with online.AsyncFeatureReader(url, contract()) as reader:
        tables = await asyncio.gather(*(reader.read(KEYS, as_of=AT) for _ in range(50)))
    assert all(table.to_dict() == expected.to_dict() for table in tables)
    assert all(table.statuses == expected.statuses for table in tables)


async def test_a_near_cache_answers_until_the_store_tells_of_a_change(valkey_server: ValkeyServer) -> None:
    station = JoinKey("station", Dtype.INT64)
    view = ViewRead("noise", (station,), 0, (FeatureField("level", Dtype.FLOAT32),), near_cache=True)
    hot = FeatureContract(OWN_PROJECT, (view,), (RequestField("unused", Dtype.BOOL),), contract().definitions_digest)
    url = f"{valkey_server.url}/10"
    client = redis.Redis(host=valkey_server.host, port=valkey_server.port, db=10)
    client.flushdb()
    _write(client, merged(stored((STATION,), (7,), "noise", NOW - HOUR_US, {"level": 0.5})))
    async with online.AsyncFeatureReader(url, hot, near_cache_bytes=1_000_000) as reader, asyncio.timeout(20.0):
        tables = [await reader.read({"station": [7]}, as_of=AT) for _ in range(3)]
        assert [table.to_dict()["noise__level"] for table in tables] == [[0.5]] * 3
        assert tables[-1].near["noise"].tolist() == [True]
        _write(client, merged(stored((STATION,), (7,), "noise", NOW, {"level": 0.75})))
        while (table := await reader.read({"station": [7]}, as_of=AT)).to_dict()["noise__level"] != [0.75]:
            assert table.near["noise"].all(), "only what is kept may be old, and only until the news is here"
        assert table.ages_s["noise"].tolist() == [0.0]
    client.flushdb()
    client.close()


def test_importing_it_imports_neither_feast_nor_what_only_a_table_needs() -> None:
    heavy = ("feast", "pandas", "duckdb", "pyarrow", "sqlalchemy", "onnxruntime", "sklearn")
    code = f"import json, sys; import skewless.online; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []


def test_the_page_for_users_shows_what_happens(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page runs, and prints the text block behind it."""
    page = (Path(__file__).parents[2] / "docs" / "online-reads.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```\n+```text\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == page.count("```python")
    shown = replace(contract(), views=contract().views[:2])
    (tmp_path / "contract.json").write_bytes(canonical_json.encode(shown.to_json()))
    monkeypatch.chdir(tmp_path)
    _snapshots("sqlite:///registry.db", OWN_PROJECT, read=shown)
    known: dict[str, Any] = {"__name__": "page"}
    for code, expected in examples:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code.replace("redis://127.0.0.1:6379", url), known)  # noqa: S102  # the project's own page
        assert printed.getvalue() == expected


_ITEMS: dict[Dtype, list[Any]] = {
    Dtype.BOOL: [True, False],
    Dtype.INT32: [-(1 << 31), 7],
    Dtype.INT64: [(1 << 53) + 1, -(1 << 63)],
    Dtype.FLOAT32: [0.5, -2.25],
    Dtype.FLOAT64: [0.1, 1e300],
    Dtype.STRING: ["", "Zürich ✈"],
    Dtype.BYTES: [b"", b"\x00\xff"],
    Dtype.TIMESTAMP: [0, NOW],
}
_ITEMS.update({listed: [(), tuple(_ITEMS[element])] for listed, element in ELEMENTS.items()})


@pytest.mark.parametrize("dtype", list(Dtype))
def test_every_dtype_leaves_a_table_as_it_is_in_all_its_forms(dtype: Dtype) -> None:
    column = column_of(dtype, [*_ITEMS[dtype], None])
    moments = np.array([NOW] * 3, dtype=np.int64)
    table = online.FeatureTable({}, FeatureFrame(3, {"v__f": column}, {}, {"v": moments}), NOW)
    expected = table.to_dict()["v__f"]
    assert expected[2] is None
    assert table.to_arrow().column("v__f").to_pylist() == expected
    only_null = table_from_columns({"v__f": column_of(dtype, [None])})
    assert table.to_arrow().schema == only_null.schema, "a type comes from the declaration, not from values"
    pandas = table.to_pandas()["v__f"]
    assert pandas.tolist()[:2] == expected[:2]
    assert pandas.isna().tolist() == [False, False, True]
    masked = table.to_numpy()["v__f"]
    assert masked.mask.tolist() == [False, False, True]
    assert masked.data.dtype == (np.dtype("datetime64[us]") if dtype is Dtype.TIMESTAMP else TABLE[dtype].numpy)


def test_nan_is_a_value_and_null_is_none_in_all_forms() -> None:
    column = column_of(Dtype.FLOAT64, [float("nan"), None])
    table = online.FeatureTable({}, FeatureFrame(2, {"v__f": column}, {}, {}), NOW)
    assert [str(value) for value in table.to_dict()["v__f"]] == ["nan", "None"]
    assert [str(value) for value in table.to_arrow().column("v__f").to_pylist()] == ["nan", "None"]
    assert np.isnan(table.to_numpy()["v__f"].data[0])
    assert table.to_numpy()["v__f"].mask.tolist() == [False, True]
