"""Whatever the documents of a bundle say, with every digest put right, they are a bundle or are refused."""

import copy
import json
import math
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import tampering
from harness.bundles import build_bundle
from harness.examples import examples
from skewless.adapters.step_loader import TransformSteps
from skewless.bundles.admission import Result, Surroundings, admit
from skewless.bundles.bundle import FILES, Bundle, load_bundle
from skewless.canonical_json import encode
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.serving.served_bundle import prepare_bundle

SIMPLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(
        ["", "float32", "string", "weather", "weather__temp", "probabilities", "NaN", "0" * 64, "model.onnx"]
    ),
)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that every example tampers with and puts right again."""
    built = build_bundle(tmp_path_factory.mktemp("artifacts"))
    return Path(shutil.copytree(built.folder, tmp_path_factory.mktemp("copies") / "bundle"))


def _places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place of the JSON, the top among them."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


def _at(data: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        data = data[step]
    return data


def _mutated(document: Any, draw: st.DataObject) -> Any:
    """The document with one value replaced, removed, doubled or moved from elsewhere in it."""
    places = _places(document)
    place = draw.draw(st.sampled_from(places), label="place")
    how = draw.draw(st.sampled_from(["replace", "nudge", "remove", "add", "copy"]), label="how")
    if how == "copy":
        value = copy.deepcopy(_at(document, draw.draw(st.sampled_from(places), label="from")))
    else:
        value = draw.draw(VALUES, label="value")
    changed = copy.deepcopy(document)
    if not place:
        return value
    *above, last = place
    target = _at(changed, tuple(above))
    if how == "remove":
        del target[last]
    elif how == "add" and isinstance(target, dict):
        target[draw.draw(st.text(max_size=4), label="field")] = value
    elif how == "add":
        target.insert(int(last), value)
    elif how == "nudge" and type(target[last]) in (int, float):
        target[last] = target[last] + draw.draw(st.sampled_from([-1, 1, 2**40, 0.5]), label="by")
    else:
        target[last] = value
    return changed


def _prepare(bundle: Bundle) -> None:
    """What is admitted can be made ready to serve; only a name that no store could have is refused there."""
    with suppress(InvalidDefinition):
        prepare_bundle(bundle, "model")


@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_any_change_of_a_document_is_a_bundle_or_a_refusal_in_words(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(FILES)), label="file")
    documents = {each: (folder / each).read_bytes() for each in (path, "manifest.json")}
    try:
        tampering.replace(folder, path, encode(_mutated(json.loads(documents[path]), data)))
        admission = admit(folder, None, Surroundings(clock=time.monotonic_ns, steps=TransformSteps))
        for check in admission.checks:
            assert (check.result is Result.REFUSED) == bool(check.message and check.hint), check
            assert math.isfinite(check.seconds)
        if admission.admitted:
            assert load_bundle(folder, steps=TransformSteps).digest == tampering.digest_of(folder)
            _prepare(admission.require())
        else:
            with pytest.raises(BundleRefused):
                admission.require()
    finally:
        for each, content in documents.items():
            (folder / each).write_bytes(content)
