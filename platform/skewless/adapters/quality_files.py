"""Suites as YAML files beside the feature views: read with the line of everything, and written as drafts."""

import os
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from skewless.errors import InvalidDefinition, NotFound
from skewless.monitor_limits import QUALITY_SUITE_BYTES_MAX
from skewless.quality.loading import Document, suite_of
from skewless.quality.suite import Suite
from skewless.quality.view_schema import ViewSchema

FOLDER = "quality"
"""Of a feature repository; each file is `<view>.yaml`."""


def suite_files(repository: Path) -> dict[str, Path]:
    """The suite file of each view that has one, by the view's name. Hidden files, such as an editor's, are none."""
    found = (repository / FOLDER).glob("*.yaml")
    return {path.stem: path for path in sorted(found) if not path.name.startswith(".")}


def load_suite(path: Path, schema: ViewSchema | None) -> Suite:
    """The suite of a file, checked against its view (None: against none).

    Raises NotFound, and InvalidDefinition that names file, line and field of everything that is wrong.
    """
    return suite_of(_document(path), schema)


def load_suites(repository: Path, schemas: Mapping[str, ViewSchema]) -> dict[str, Suite]:
    """Every suite of a feature repository, by view. Raises InvalidDefinition, also for one of no registered view."""
    suites = {}
    for view, path in suite_files(repository).items():
        if view not in schemas:
            raise InvalidDefinition(
                f"`{path}` is named after no registered feature view; views: {', '.join(sorted(schemas)) or 'none'}",
                hint="name the file after its view, or run `skewless apply` first",
            )
        suites[view] = load_suite(path, schemas[view])
    return suites


def save_suite(path: Path, suite: Suite, *, note: str) -> None:
    """Write a suite as a file that `load_suite` reads, with a comment on top. Raises InvalidDefinition where it exists.

    A suite that is there was written or reviewed by somebody, and is never replaced.
    """
    document = suite.to_json()
    document["meta"]["reviewed"] = document["meta"]["reviewed"] or False
    for each in document["expectations"]:
        if not each["meta"]:
            del each["meta"]
    comment = "".join(f"# {line}\n" for line in note.splitlines())
    text = comment + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        raise InvalidDefinition(
            f"`{path}` exists; a suite that somebody may have reviewed is not replaced",
            hint="write the draft elsewhere with --out, compare the two and take over what is wanted",
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _document(path: Path) -> Document:
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= QUALITY_SUITE_BYTES_MAX else ""
    except FileNotFoundError as error:
        raise NotFound("suite", str(path), hint="`skewless quality suggest VIEW` drafts one from data") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDefinition(f"suite `{path}` cannot be read: {error}") from error
    if size > QUALITY_SUITE_BYTES_MAX:
        raise InvalidDefinition(f"suite `{path}` has {size:,} bytes; allowed: {QUALITY_SUITE_BYTES_MAX:,}")
    lines: dict[tuple[str | int, ...], int] = {}
    data: Any = None
    try:
        loader = _UniqueKeys(text)
        node = loader.get_single_node()
        if node is not None:
            lines = dict(_places(node, ()))
            data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidDefinition(
            f"{path}:{line}: it is no YAML: {error.problem}", hint="quote texts that hold a colon, `#`, `{` or `[`"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidDefinition(f"{path}:1: it is no YAML: {error}") from error
    return Document(str(path), data, lines)


def _places(node: yaml.Node, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], int]]:
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _places(value, (*path, str(key.value)))
            yield (*path, str(key.value)), key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            yield from _places(value, (*path, place))


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{name}` is there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)
