"""Tags of feature views that other parts read, checked by those parts' own readers before they are registered."""

from collections.abc import Callable, Iterator, Mapping

from skewless.adapters.cron_times import schedule_problem
from skewless.errors import InvalidDefinition
from skewless.features.definition_metadata import DefinitionSet, ViewMetadata
from skewless.features.feature_checks import Finding, Severity
from skewless.ingestion.event_times import parse_future, parse_late

_READERS: Mapping[str, Callable[[str], object]] = {"late": parse_late, "future": parse_future}


def check_tags(definitions: DefinitionSet) -> Iterator[Finding]:
    """What is wrong with schedules, and with what is to happen to late and future rows."""
    for view in definitions.views.values():
        if view.schedule is not None and (problem := schedule_problem(view.schedule)) is not None:
            message, hint = problem
            yield Finding(Severity.ERROR, "wrong_schedule", f"feature view `{view.name}`: {message}", hint)
        yield from _event_times(view)


def _event_times(view: ViewMetadata) -> Iterator[Finding]:
    for name, read in _READERS.items():
        try:
            read(view.tags.get(name, ""))
        except InvalidDefinition as error:
            yield Finding(Severity.ERROR, "bad_tag", f"feature view `{view.name}`: {error.message}", error.hint)
