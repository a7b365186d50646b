"""What the prediction log keeps in place of values that are marked, and that nothing of them is left anywhere."""

import hmac
from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.bundles import contract
from harness.log_batches import a_batch
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.contract import (
    FeatureContract,
    FeatureField,
    JoinKey,
    LogMark,
    Mode,
    OnDemandView,
    RequestField,
    ViewRead,
)
from skewless.features.contract_changes import contract_differences, definition_differences
from skewless.serving.log_blocks import AnsweredBlock, block, decode, encode, groups
from skewless.serving.log_privacy import LogMarks, LogPrivacy, log_marks
from skewless.serving.records import AnsweredBatch, tensor_digest

KEY = b"a key of some length"
PRIVACY = LogPrivacy(KEY)
MARKS = LogMarks(frozenset({"origin", "v__exact", "v__raw"}), frozenset({"distance", "v__name"}), keeps_tensor=False)


def marked_contract() -> FeatureContract:
    return FeatureContract(
        "demo",
        (
            ViewRead(
                "v",
                (JoinKey("customer", Dtype.INT64, log=LogMark.HASH),),
                0,
                (FeatureField("income", Dtype.FLOAT64, log=LogMark.OMIT), FeatureField("age", Dtype.INT64)),
            ),
        ),
        (RequestField("email", Dtype.STRING, log=LogMark.HASH), RequestField("party", Dtype.INT32)),
        digest("definitions"),
        (
            OnDemandView(
                "computed",
                Mode.PYTHON,
                "module:function",
                digest("source"),
                (("age", "v__age"),),
                (FeatureField("band", Dtype.STRING, log=LogMark.OMIT),),
            ),
        ),
    )


def kept(batch: AnsweredBatch) -> AnsweredBlock:
    """A batch as the log keeps it, read back."""
    (group,) = groups([batch])
    found = decode(encode(block(group, PRIVACY)))
    assert isinstance(found, AnsweredBlock)
    return found


def test_marks_are_found_wherever_a_contract_has_them() -> None:
    assert log_marks(marked_contract()) == {
        "customer": LogMark.HASH,
        "email": LogMark.HASH,
        "v__income": LogMark.OMIT,
        "computed__band": LogMark.OMIT,
    }
    assert log_marks(contract()) == {}
    assert LogMarks.of(contract(), []) is None


def test_marks_stand_in_the_contract_only_where_there_are_any() -> None:
    marked = marked_contract()
    assert FeatureContract.from_json(marked.to_json()) == marked
    assert '"log"' not in str(contract().to_json()).replace("'", '"')
    plain = replace(marked, request_fields=(RequestField("email", Dtype.STRING), marked.request_fields[1]))
    assert plain.digest != marked.digest


def test_a_tensor_is_kept_unless_a_marked_column_feeds_the_transform() -> None:
    for inputs, keeps in ((["v__age", "party"], True), (["v__age", "v__income"], False), (["email"], False)):
        marks = LogMarks.of(marked_contract(), inputs)
        assert marks is not None
        assert marks.keeps_tensor is keeps


def test_hashed_columns_are_text_of_one_keyed_hash_and_nulls_stay_null() -> None:
    batch = replace(a_batch("a", rows=3), marks=MARKS)
    found = kept(batch)
    origin = found.given["origin"]
    assert (origin.dtype, origin.valid.tolist()) == (Dtype.STRING, [True, False, True])
    assert origin.values.tolist() == [hmac.new(KEY, b"JFK", "sha256").hexdigest(), ""] * 1 + [origin.values[0]]
    exact = found.frame.columns["v__exact"]
    assert exact.values.tolist() == [hmac.new(KEY, str((1 << 53) + 1).encode(), "sha256").hexdigest()] * 3
    assert found.frame.columns["v__raw"].values[0] == hmac.new(KEY, b"\x00\xff", "sha256").hexdigest()
    assert set(found.given) == set(batch.given)
    assert set(found.frame.columns) == set(batch.frame.columns)


def test_omitted_columns_are_null_of_their_own_dtype_and_others_are_untouched() -> None:
    batch = replace(a_batch("a", rows=3), marks=MARKS)
    found = kept(batch)
    for column, dtype in ((found.given["distance"], Dtype.FLOAT64), (found.frame.columns["v__name"], Dtype.STRING)):
        assert column.dtype is dtype
        assert not column.valid.any()
        assert len(column) == 3
    for name in ("v__temp", "v__flag", "v__time", "v__last"):
        mine, theirs = found.frame.columns[name], batch.frame.columns[name]
        assert mine.valid.tolist() == theirs.valid.tolist()
        assert str(mine.values.tolist()) == str(theirs.values.tolist())
    assert found.frame.statuses["v__name"].tolist() == batch.frame.statuses["v__name"].tolist()


def test_a_tensor_made_of_marked_values_is_left_out_and_its_digest_stays() -> None:
    batch = replace(a_batch("a", rows=3), marks=MARKS)
    found = kept(batch)
    assert found.tensor is None
    assert found.tensor_digests == [tensor_digest(row) for row in batch.tensor]
    told = kept(replace(batch, marks=replace(MARKS, keeps_tensor=True)))
    assert told.tensor is not None
    assert told.tensor.tobytes() == batch.tensor.tobytes()


def test_no_byte_of_a_frame_is_of_a_marked_value() -> None:
    secret = "somebody@example.org"
    batch = a_batch("a", rows=2)
    given = {"origin": column_of(Dtype.STRING, [secret, secret]), "distance": batch.given["distance"]}
    open_frame = encode(block(groups([replace(batch, given=given)])[0], PRIVACY))
    assert secret.encode() in open_frame
    for marks in (
        LogMarks(frozenset({"origin"}), frozenset(), keeps_tensor=True),
        LogMarks(frozenset(), frozenset({"origin"}), keeps_tensor=True),
    ):
        frame = encode(block(groups([replace(batch, given=given, marks=marks)])[0], PRIVACY))
        assert secret.encode() not in frame
        assert batch.tensor.tobytes() in frame
    assert batch.tensor.tobytes() not in encode(block(groups([replace(batch, marks=MARKS)])[0], PRIVACY))


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        (Dtype.STRING, "é\ud800", "é\ud800".encode(errors="surrogatepass")),
        (Dtype.BYTES, b"\0\1", b"\0\1"),
        (Dtype.INT32, -7, b"-7"),
        (Dtype.BOOL, True, b"true"),
        (Dtype.BOOL, False, b"false"),
        (Dtype.FLOAT64, 0.1, b"0.1"),
        (Dtype.TIMESTAMP, 1_367_411_400_000_000, b"1367411400000000"),
    ],
)
def test_a_value_is_hashed_by_one_text_of_it(dtype: Dtype, value: object, text: bytes) -> None:
    assert PRIVACY.hashed(dtype, value) == hmac.new(KEY, text, "sha256").hexdigest()
    assert LogPrivacy(b"another key, as long").hashed(dtype, value) != PRIVACY.hashed(dtype, value)


def test_lists_are_hashed_as_a_whole() -> None:
    one = PRIVACY.hashed(Dtype.STRING_LIST, ("a", "bc"))
    assert one == PRIVACY.hashed(Dtype.STRING_LIST, ("a", "bc"))
    assert one != PRIVACY.hashed(Dtype.STRING_LIST, ("ab", "c"))


def test_the_key_is_in_nothing_that_is_printed() -> None:
    assert KEY.decode() not in repr(PRIVACY)
    assert not LogPrivacy().can_hash


def _variants() -> Iterator[tuple[FeatureContract, str]]:
    marked = marked_contract()
    (view,) = marked.views
    key, field = view.join_keys[0], view.features[1]
    yield replace(marked, views=(replace(view, join_keys=(replace(key, log=LogMark.OMIT),)),)), "join key `customer`"
    yield (
        replace(marked, views=(replace(view, features=(view.features[0], replace(field, log=LogMark.HASH))),)),
        "feature `age`",
    )
    fields = (replace(marked.request_fields[0], log=LogMark.OMIT), marked.request_fields[1])
    yield replace(marked, request_fields=fields), "request field `email`"
    computed = replace(marked.on_demand[0], features=(FeatureField("band", Dtype.STRING),))
    yield replace(marked, on_demand=(computed,)), "on-demand view `computed`"


@pytest.mark.parametrize(("changed", "what"), list(_variants()), ids=lambda each: each if isinstance(each, str) else "")
def test_a_changed_mark_is_a_changed_definition_and_told(changed: FeatureContract, what: str) -> None:
    for differences in (definition_differences, contract_differences):
        (told,) = differences(marked_contract(), changed)
        assert what in told
    assert list(definition_differences(changed, changed)) == []


def test_a_mark_that_only_the_model_gives_its_request_field_is_no_changed_definition() -> None:
    registered = replace(marked_contract(), request_fields=(RequestField("email", Dtype.STRING),))
    assert list(definition_differences(marked_contract(), registered)) == []
    (told, gone) = contract_differences(marked_contract(), registered)
    assert "the prediction log's mark of request field `email` was `hash`, is `keep`" in (told, gone)
