"""What importing Feast costs, and what it still checks."""

import subprocess
import sys

import pytest
from typeguard import TypeCheckError

from skewless.adapters.feast_import import Entity, FeatureView, FileSource, ValueType

SOURCE = FileSource(name="rows", path="rows.parquet")


@pytest.mark.parametrize("_again", ["the first time", "and again"])
def test_arguments_of_wrong_types_are_refused_by_their_name(_again: str) -> None:
    with pytest.raises(TypeCheckError, match=r'argument "ttl" \(str\)'):
        FeatureView(name="view", source=SOURCE, ttl="1h")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TypeCheckError, match=r'argument "name" \(int\)'):
        Entity(name=5, value_type=ValueType.STRING)  # type: ignore[arg-type]  # as above


def test_an_entity_goes_through_its_registered_form() -> None:
    entity = Entity(name="station", value_type=ValueType.STRING)
    assert Entity.from_proto(entity.to_proto()) == entity


def test_importing_prepares_the_checks_of_few_classes() -> None:
    code = (
        "import typeguard._decorators as decorators; made = set(); instrument = decorators.instrument;"
        "decorators.instrument = lambda checked: made.add(checked.__qualname__.split('.')[0]) or instrument(checked);"
        "import skewless.adapters.feast_import; print(sorted(made))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    # Feast makes an object of these two for itself; of nineteen that are checked.
    assert done.stdout == "['Entity', 'Field']\n"
