"""The difference of two transforms in words a reviewer reads.

Outputs are matched by name, and their expressions compared from the output down. Where both do the same operation,
what was declared and what was learned are compared and the operands looked at; where one has an operation in between,
that is told and the rest compared on. A change that several outputs share is told once, with all of them.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from skewless.canonical_json import Digest, digest
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.description import node_words, shortened, step_words, value_words
from skewless.transforms.graph import Graph
from skewless.transforms.operation import Settings
from skewless.transforms.spec import FittedTransform

_LISTED = 5
"""Words named of those that came or went."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is otherwise: `subject` is what sort of thing, `text` a sentence, `outputs` those it reaches."""

    subject: str
    text: str
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything in which `after` differs from `before`."""

    before: Digest
    after: Digest
    changes: tuple[Change, ...]

    @property
    def equal(self) -> bool:
        """Whether they are the same transform."""
        return self.before == self.after

    def text(self) -> str:
        """Lines for a terminal, grouped by subject."""
        head = f"transform {self.before[:12]} → {self.after[:12]}"
        if self.equal:
            return f"transform {self.before[:12]}: no difference"
        lines = [head]
        for subject in dict.fromkeys(change.subject for change in self.changes):
            lines.append(f"{subject}:")
            for change in self.changes:
                if change.subject == subject:
                    reached = f"  [{', '.join(change.outputs)}]" if change.outputs else ""
                    lines.append(f"  {change.text}{reached}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "before": self.before,
            "after": self.after,
            "equal": self.equal,
            "changes": [
                {"subject": change.subject, "text": change.text, "outputs": list(change.outputs)}
                for change in self.changes
            ],
        }


def compare(before: FittedTransform, after: FittedTransform) -> Difference:
    """All changes from one transform to the other."""
    changes = [*_versions(before, after), *_inputs(before, after), *_outputs(before, after)]
    changes += _Expressions(_Side.of(before), _Side.of(after)).changes()
    return Difference(before.digest, after.digest, tuple(changes))


def _versions(before: FittedTransform, after: FittedTransform) -> list[Change]:
    old, new = (each.to_json()["semantics_version"] for each in (before, after))
    return (
        [] if old == new else [Change("semantics", f"version {old} → {new}: it uses operations that came with {new}")]
    )


def _inputs(before: FittedTransform, after: FittedTransform) -> list[Change]:
    old = {each.name: each for each in before.graph.inputs}
    new = {each.name: each for each in after.graph.inputs}
    changes = [Change("inputs", f"`{name}` ({new[name].dtype}) is read now") for name in new if name not in old]
    changes += [Change("inputs", f"`{name}` ({old[name].dtype}) is read no more") for name in old if name not in new]
    for name in (name for name in old if name in new):
        if old[name].dtype is not new[name].dtype:
            changes.append(Change("inputs", f"`{name}` is {new[name].dtype}, was {old[name].dtype}"))
        if old[name].nullable is not new[name].nullable:
            now = "may be null now" if new[name].nullable else "may be null no more"
            changes.append(Change("inputs", f"`{name}` {now}"))
    return changes


def _outputs(before: FittedTransform, after: FittedTransform) -> list[Change]:
    old, new = dict(before.graph.outputs), dict(after.graph.outputs)
    renamed = _renamed(before, after)
    changes = [Change("outputs", f"`{name}` is called `{now}` now") for name, now in renamed.items()]
    words = node_words(after.graph, after.learned)
    changes += [
        Change("outputs", f"`{name}` is new: {words[index]}")
        for name, index in new.items()
        if name not in old and name not in renamed.values()
    ]
    changes += [Change("outputs", f"`{name}` is gone") for name in old if name not in new and name not in renamed]
    kept = [renamed.get(name, name) for name in old if renamed.get(name, name) in new]
    moved = _moved(kept, [name for name in new if name in set(kept)])
    if moved:
        changes.append(Change("outputs", f"in another order: {', '.join(f'`{name}`' for name in moved)} moved"))
    widths = len(before.output_names), len(after.output_names)
    if before.output_names != after.output_names:
        columns = f"{widths[0]} → {widths[1]}" if widths[0] != widths[1] else f"still {widths[0]}"
        changes.append(
            Change("outputs", f"the tensor's columns are others ({columns}): a model for one cannot take the other")
        )
    return changes


def _renamed(before: FittedTransform, after: FittedTransform) -> dict[str, str]:
    """Outputs that went, each with one that came and is declared alike."""
    old_keys, new_keys = _declared_keys(before.graph), _declared_keys(after.graph)
    old, new = dict(before.graph.outputs), dict(after.graph.outputs)
    came = {new_keys[index]: name for name, index in reversed(after.graph.outputs) if name not in old}
    gone = [(name, old_keys[index]) for name, index in before.graph.outputs if name not in new]
    return {name: came.pop(key) for name, key in gone if key in came}


def _moved(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The fewest names that moved: those outside of a longest run of names that kept their order."""
    place = {name: index for index, name in enumerate(before)}
    ends: list[int] = []
    chain: list[tuple[int, int | None]] = []
    tops: list[int] = []
    for index, name in enumerate(after):
        length = bisect_left(ends, place[name])
        ends[length:] = [place[name]]
        tops[length:] = [index]
        chain.append((index, tops[length - 1] if length else None))
    kept: set[str] = set()
    current = tops[-1] if tops else None
    while current is not None:
        kept.add(after[current])
        current = chain[current][1]
    return [name for name in after if name not in kept]


def _declared_keys(graph: Graph) -> list[str]:
    """A key per node, the same for the same expression, whatever was learned."""
    keys: list[str] = []
    for node, operands in zip(graph.nodes, graph.operands, strict=True):
        keys.append(digest([node.operation.name, dict(node.settings), [keys[operand] for operand in operands]]))
    return keys


class _Side(NamedTuple):
    """One of the two transforms, with each node in words and a key that covers all below it and all learned."""

    graph: Graph
    learned: Mapping[int, Settings]
    words: list[str]
    keys: list[str]

    @classmethod
    def of(cls, fitted: FittedTransform) -> "_Side":
        graph, learned = fitted.graph, fitted.learned
        keys: list[str] = []
        for index, (node, operands) in enumerate(zip(graph.nodes, graph.operands, strict=True)):
            own = [node.operation.name, dict(node.settings), dict(learned.get(index, {}))]
            keys.append(digest([own, [keys[operand] for operand in operands]]))
        return cls(graph, learned, node_words(graph, learned), keys)

    def step(self, index: int) -> str:
        node = self.graph.nodes[index]
        return step_words(node.operation.name, node.settings)


class _Expressions:
    """Compares the expressions of outputs that both transforms have."""

    def __init__(self, before: _Side, after: _Side) -> None:
        self._before = before
        self._after = after
        self._found: dict[tuple[str, str], dict[str, None]] = {}
        """Outputs by change: a subject and a sentence."""

    def changes(self) -> list[Change]:
        """The changes, declared ones first."""
        old = dict(self._before.graph.outputs)
        for name, index in self._after.graph.outputs:
            if name in old:
                self._compare_output(name, old[name], index)
        found = [Change(subject, text, tuple(outputs)) for (subject, text), outputs in self._found.items()]
        return [each for each in found if each.subject == "operations"] + [
            each for each in found if each.subject != "operations"
        ]

    def _compare_output(self, name: str, before: int, after: int) -> None:
        waiting = [(before, after)]
        seen: set[tuple[int, int]] = set()
        while waiting:
            pair = waiting.pop()
            if pair in seen or self._before.keys[pair[0]] == self._after.keys[pair[1]]:
                continue
            seen.add(pair)
            waiting += reversed(self._compare_nodes(name, *pair))

    def _compare_nodes(self, name: str, before: int, after: int) -> list[tuple[int, int]]:
        """Tell what differs in the two nodes themselves; the pairs of nodes to look at next."""
        old, new = self._before.graph.nodes[before], self._after.graph.nodes[after]
        old_operands, new_operands = self._before.graph.operands[before], self._after.graph.operands[after]
        if old.operation.name == new.operation.name and len(old_operands) == len(new_operands):
            self._compare_parameters(name, before, after)
            return list(zip(old_operands, new_operands, strict=True))
        above = self._one_operand(self._after, after, old.operation.name)
        if above is not None:
            self._tell("operations", f"{self._after.step(after)} comes after {self._after.words[above]}", name)
            return [(before, above)]
        above = self._one_operand(self._before, before, new.operation.name)
        if above is not None:
            self._tell("operations", f"{self._before.step(before)} is gone after {self._before.words[above]}", name)
            return [(above, after)]
        self._tell("operations", f"is {self._after.words[after]}, was {self._before.words[before]}", name)
        return []

    @staticmethod
    def _one_operand(side: _Side, index: int, operation: str) -> int | None:
        """The node's one operand, where it is of this operation: then the node was put in between."""
        operands = side.graph.operands[index]
        fits = len(operands) == 1 and side.graph.nodes[operands[0]].operation.name == operation
        return operands[0] if fits else None

    def _compare_parameters(self, name: str, before: int, after: int) -> None:
        old, new = self._before.graph.nodes[before], self._after.graph.nodes[after]
        if old.operation is COLUMN and old.settings["name"] != new.settings["name"]:
            self._tell("operations", f"reads `{new.settings['name']}` instead of `{old.settings['name']}`", name)
            return
        below = self._after.graph.operands[after]
        of = f" of {shortened(self._after.words[below[0]])}" if below else ""
        for key in old.settings:
            if old.operation is not COLUMN and old.settings[key] != new.settings[key]:
                changed = f"{_value(old.settings[key])} → {_value(new.settings[key])}"
                self._tell("operations", f"{old.operation.name}{of}: {key} {changed}", name)
        learned = self._before.learned.get(before, {}), self._after.learned.get(after, {})
        for key in learned[0]:
            if learned[0][key] != learned[1].get(key):
                moved = how_moved(learned[0][key], learned[1].get(key))
                self._tell("learned", f"{old.operation.name}{of}: {key.replace('_', ' ')} {moved}", name)

    def _tell(self, subject: str, text: str, output: str) -> None:
        self._found.setdefault((subject, text), {})[output] = None


def how_moved(before: object, after: object) -> str:
    """How far a learned value moved, in words.

    >>> how_moved(10.0, 12.0)
    '10 → 12 (+2, +20 %)'
    """
    if isinstance(before, float) and isinstance(after, float):
        percent = (after - before) / abs(before) * 100.0 if before else math.inf
        share = f", {percent:+.3g} %" if math.isfinite(percent) else ""
        return f"{before:.7g} → {after:.7g} ({after - before:+.4g}{share})"
    if isinstance(before, list) and isinstance(after, list):
        if all(isinstance(each, str) for each in (*before, *after)):
            return _words_moved(before, after)
        return _numbers_moved(before, after)
    return f"{_value(before)} → {_value(after)}"


def _words_moved(before: list[str], after: list[str]) -> str:
    came = [word for word in after if word not in set(before)]
    gone = [word for word in before if word not in set(after)]
    moved = _moved([word for word in before if word in set(after)], [word for word in after if word in set(before)])
    parts = [
        f"{len(words)} {what}: {', '.join(map(repr, words[:_LISTED]))}{' …' if len(words) > _LISTED else ''}"
        for what, words in (("came", came), ("went", gone), ("changed place", moved))
        if words
    ]
    return f"({len(before)} → {len(after)} words) {'; '.join(parts)}"


def _numbers_moved(before: list[float], after: list[float]) -> str:
    if len(before) != len(after):
        return f"{len(before)} → {len(after)} numbers: {value_words(before)} → {value_words(after)}"
    place = max(range(len(before)), key=lambda index: abs(after[index] - before[index]))
    count = sum(old != new for old, new in zip(before, after, strict=True))
    furthest = how_moved(float(before[place]), float(after[place]))
    return f"{count} of {len(before)} numbers moved, the furthest is number {place + 1}: {furthest}"


def _value(value: object) -> str:
    return "none" if value is None else value_words(value)
