"""Reports in a home that tell of an entity, which are removed whole: whoever wants one again has it made again."""

import html
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from skewless.features.chosen_entities import ChosenEntities

_TEXTS = frozenset({".json", ".html", ".csv", ".ndjson", ".txt", ".md", ".svg", ".yaml"})
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?:-\d+)?")


class ReportErasure:
    """Files under some folders in which each of the entities' values stands as a word, or one of their predictions."""

    name = "reports"

    def __init__(
        self, folders: Sequence[Path], entities: ChosenEntities, prediction_ids: Callable[[], Collection[str]]
    ) -> None:
        self._folders = folders
        self._words = [_word(each) for each in entities.texts]
        self._prediction_ids = prediction_ids

    def look(self) -> dict[str, int]:
        """Files by folder."""
        return dict(Counter(folder.name for folder, _ in self._found()))

    def erase(self) -> None:
        """Remove them."""
        for _, path in list(self._found()):
            path.unlink(missing_ok=True)

    def _found(self) -> Iterator[tuple[Path, Path]]:
        ids = {each.encode() for each in self._prediction_ids()}
        for folder in self._folders:
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if path.suffix in _TEXTS and path.is_file() and self._tells(path.read_bytes(), ids):
                    yield folder, path

    def _tells(self, text: bytes, ids: Collection[bytes]) -> bool:
        return all(word.search(text) for word in self._words) or any(each in ids for each in _ID.findall(text))


def _word(value: str) -> re.Pattern[bytes]:
    """A value as a word in any way that reports write it; it may end a sentence, and begin a line within JSON."""
    in_json = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    in_html = {html.escape(each) for each in in_json}
    # Templates write quotes by their decimal numbers, and CSV doubles them.
    templated = {each.replace("&#x27;", "&#39;").replace("&quot;", "&#34;") for each in in_html}
    forms = in_json | in_html | templated | {value.replace('"', '""')}
    alternatives = b"|".join(re.escape(each).encode(errors="surrogateescape") for each in sorted(forms))
    return re.compile(rb"(?:(?<![\w.])|(?<=\\[nrt]))(?:" + alternatives + rb")(?!\w|\.\w)")
