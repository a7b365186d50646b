"""The public surface is a tested fact: what a package lists is what it offers, in order."""

import importlib
from types import ModuleType

import pytest

PUBLIC_PACKAGES = ("skewless.logs", "skewless.monitors", "skewless.online", "skewless.transforms")


@pytest.mark.parametrize("name", PUBLIC_PACKAGES)
def test_all_lists_every_public_name_once_and_in_order(name: str) -> None:
    package = importlib.import_module(name)
    listed = list(package.__all__)
    assert listed == sorted(set(listed), key=_constants_classes_functions)
    offered = {
        attribute
        for attribute, value in vars(package).items()
        if not attribute.startswith("_") and not isinstance(value, ModuleType)
    }
    assert offered == set(listed)


@pytest.mark.parametrize("name", PUBLIC_PACKAGES)
def test_every_public_thing_says_what_it_is(name: str) -> None:
    package = importlib.import_module(name)
    silent = [
        each for each in package.__all__ if callable(getattr(package, each)) and not getattr(package, each).__doc__
    ]
    assert not silent, f"add a docstring: {silent}"


def _constants_classes_functions(name: str) -> tuple[int, str]:
    """The order that ruff's RUF022 keeps: CONSTANTS, Classes, functions, each by name."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)
