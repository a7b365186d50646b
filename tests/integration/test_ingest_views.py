"""What can be ingested and delivered as suites and definitions change under a service that runs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.ingest_services import SUITE, VIEW, VISITS, IngestHome, apply, clicks
from harness.servers import wait_until
from skewless.adapters.ingest_views import IngestViews
from skewless.adapters.quality_files import save_suite
from skewless.errors import InvalidRequest, NotFound, Unavailable
from skewless.registry import database
from skewless.registry.definitions import Definitions
from skewless_ingest.fullness import Fullness


@pytest.fixture
def home(tmp_path: Path) -> IngestHome:
    return IngestHome.made(tmp_path, "redis://127.0.0.1:1", suite=None)


@pytest.fixture
def views(home: IngestHome) -> Iterator[IngestViews]:
    engine = database.engine(home.url)
    found = IngestViews(Definitions(engine), home.repo)
    found.refresh()
    yield found
    engine.dispose()


def suite_of(home: IngestHome) -> Path:
    return home.repo / "quality" / f"{VIEW}.yaml"


def test_no_suite_keeps_accepted_rows_from_being_delivered(home: IngestHome, views: IngestViews) -> None:
    before = views.delivered_view(VIEW)
    for text in (None, "half: [a document"):
        if text is None:
            save_suite(suite_of(home), replace(SUITE, reviewed=None), note="as `skewless quality suggest` writes one")
        else:
            suite_of(home).write_text(text)
        views.refresh()
        with pytest.raises(InvalidRequest, match="takes no rows"):
            views.view(VIEW)
        assert views.delivered_view(VIEW) == before


def test_rows_wait_for_a_definition_that_they_cannot_be_delivered_by(home: IngestHome, views: IngestViews) -> None:
    with pytest.raises(Unavailable, match="Delta table only"):
        views.delivered_view("old")
    with pytest.raises(NotFound):
        views.delivered_view("nothing")
    assert views.delivered_stream(VISITS.name).name == VISITS.name
    wrong = clicks(home.folder)
    fed = replace(wrong.views[VISITS.view], tags={"future": "whenever"})
    apply(home.url, replace(wrong, views={**wrong.views, VISITS.view: fed}))
    views.refresh()
    with pytest.raises(Unavailable):
        views.delivered_stream(VISITS.name)


def test_files_that_are_no_suites_change_nothing(home: IngestHome, views: IngestViews) -> None:
    folder = home.repo / "quality"
    (folder / f".#{VIEW}.yaml").symlink_to("somebody@a-host.123")  # as an editor locks a file
    (folder / "another.yaml").symlink_to("nothing")
    views.refresh()
    assert views.error == ""
    assert views.view(VIEW).suite is None
    suite_of(home).symlink_to("nothing")
    views.refresh()
    with pytest.raises(InvalidRequest, match="takes no rows"):
        views.view(VIEW)
    suite_of(home).unlink()
    views.refresh()
    assert views.view(VIEW).suite is None


def test_looking_goes_on_after_an_error_that_nobody_foresaw() -> None:
    faults: list[Exception] = []

    def look() -> None:
        for fault in faults:
            raise fault

    fullness = Fullness(tuple, bytes_max=1, batches_max=1, look=look)
    fullness.start()
    try:
        faults.append(OSError("the folder is gone"))
        wait_until(lambda: fullness.look_problem != "", "the error is told")
        assert fullness.look_problem == "OSError: the folder is gone"
        assert fullness.problem == "", "it keeps nobody from bringing rows"
        faults.clear()
        wait_until(lambda: fullness.look_problem == "", "the next look was made")
    finally:
        fullness.stop()
