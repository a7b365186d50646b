"""A view's suite as it applies to a training set: the same meaning of the features, and no more than a warning.

A training set has a row per question and not per row of a source, so keys, times and uniqueness say nothing there; its
columns are called `view__feature`. It is there already when it is judged, so nothing is set aside or stopped.
"""

from dataclasses import replace
from typing import Any

from skewless.features.contract import column_name
from skewless.quality.catalogue import ROW_COUNT
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.quality.view_schema import Role, ViewSchema


def of_training(suite: Suite, schema: ViewSchema) -> tuple[Suite, ViewSchema]:
    """The suite and the columns that a training set has of the view, called as they are there."""
    names = {
        each.name: column_name(schema.view, each.served_name) for each in schema.columns if each.role is Role.FEATURE
    }
    kept = tuple(
        _renamed(each, names)
        for each in suite.expectations
        if (each.columns and names.keys() >= set(each.columns)) or each.type == ROW_COUNT
    )
    columns = tuple(replace(each, name=names[each.name]) for each in schema.columns if each.name in names)
    return replace(suite, expectations=kept), ViewSchema(schema.view, columns)


def _renamed(expectation: Expectation, names: dict[str, str]) -> Expectation:
    kwargs: dict[str, Any] = dict(expectation.kwargs)
    for field in ("column", "column_A", "column_B"):
        if field in kwargs:
            kwargs[field] = names[kwargs[field]]
    if "column_list" in kwargs:
        kwargs["column_list"] = [names[each] for each in kwargs["column_list"]]
    milder = OnFailure.PASS if expectation.on_failure is OnFailure.PASS else OnFailure.WARN
    return replace(expectation, kwargs=kwargs, on_failure=milder)
