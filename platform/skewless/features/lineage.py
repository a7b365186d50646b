"""Where a feature comes from and who uses it: one graph from source tables to endpoints, and its ways up and down.

    source → feature view → feature → bundle → endpoint
    entity ↗   stream ↗      ↘ on-demand view ↗
                              feature service (what was asked for by name when a bundle was trained)

A bundle is joined to the features that its transform looks at. What only its contract names is joined as well, and
marked: it is read for every request, and changes no answer.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from skewless.errors import InvalidRequest, NotFound
from skewless.features.contract import column_name
from skewless.features.definition_metadata import DefinitionSet
from skewless.features.definition_plan import BundleReads


class NodeKind(StrEnum):
    """What a node stands for."""

    SOURCE = "source"
    STREAM = "stream"
    ENTITY = "entity"
    VIEW = "view"
    ON_DEMAND = "on-demand view"
    FEATURE = "feature"
    SERVICE = "feature service"
    BUNDLE = "bundle"
    ENDPOINT = "endpoint"


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """One thing. `name` is unique within its kind: of a feature `view:feature`, of a bundle its digest."""

    kind: NodeKind
    name: str


@dataclass(frozen=True, slots=True)
class Edge:
    """Data flows from one node to another. `note` says in what capacity, empty where plainly."""

    source: Node
    target: Node
    note: str = ""


@dataclass(frozen=True)
class LineageGraph:
    """Nodes with what is known of each in words, and edges in order of the nodes they lead to."""

    nodes: Mapping[Node, str]
    _down: Mapping[Node, Sequence[Edge]] = field(repr=False)
    _up: Mapping[Node, Sequence[Edge]] = field(repr=False)

    @classmethod
    def of(cls, nodes: Mapping[Node, str], edges: Iterable[Edge]) -> "LineageGraph":
        """The graph of these edges; each of their ends is a node."""
        down: dict[Node, list[Edge]] = {}
        up: dict[Node, list[Edge]] = {}
        for edge in sorted(set(edges), key=lambda edge: (edge.source, edge.target, edge.note)):
            down.setdefault(edge.source, []).append(edge)
            up.setdefault(edge.target, []).append(edge)
        return cls(nodes, down, up)

    def downstream(self, node: Node) -> Sequence[Edge]:
        """Edges to what is made of a node."""
        return self._down.get(node, ())

    def upstream(self, node: Node) -> Sequence[Edge]:
        """Edges from what a node is made of."""
        return self._up.get(node, ())

    def reached(self, node: Node, *, downstream: bool) -> tuple[Node, ...]:
        """Every node that can be reached from one, nearest first, each once; not the node itself."""
        seen, waiting = {node: None}, deque([node])
        while waiting:
            current = waiting.popleft()
            edges = self.downstream(current) if downstream else self.upstream(current)
            for other in (edge.target if downstream else edge.source for edge in edges):
                if other not in seen:
                    seen[other] = None
                    waiting.append(other)
        return tuple(each for each in seen if each != node)

    def find(self, text: str) -> Node:
        """The node that a text names: its name, `kind:name`, a column `view__feature`, or the beginning of a digest.

        Raises NotFound, and InvalidRequest where it names several; the message lists them.
        """
        kind, _, rest = text.partition(":")
        wanted = {each.value: each for each in NodeKind}.get(kind)
        if wanted is not None and Node(wanted, rest) in self.nodes:
            return Node(wanted, rest)
        found = [node for node in self.nodes if _is_named(node, text)]
        # One view name is also what its entity or source may be called: the view is what is asked for most.
        found = [node for node in found if node.kind in (NodeKind.VIEW, NodeKind.ON_DEMAND)] or found
        if not found:
            known = tuple(sorted(node.name for node in self.nodes if node.kind in _LISTED))
            raise NotFound(
                "source, view, feature, feature service, bundle or endpoint", text, known=known,
                hint="`skewless features search` finds names by their words",
            )  # fmt: skip
        if len(found) > 1:
            raise InvalidRequest(
                f"`{text}` names more than one thing",
                path="NAME",
                allowed=", ".join(f"{node.kind.value}:{node.name}" for node in sorted(found)),
            )
        return found[0]


_LISTED = (NodeKind.VIEW, NodeKind.ON_DEMAND, NodeKind.ENDPOINT)
_DIGEST_PREFIX_MIN = 8


def lineage_graph(definitions: DefinitionSet, bundles: Sequence[BundleReads]) -> LineageGraph:
    """The graph of definitions and of what bundles read of them; bundles of other projects are left out.

    >>> lineage_graph(DefinitionSet("prod"), []).nodes
    {}
    """
    nodes: dict[Node, str] = {}
    edges: list[Edge] = []
    for part in (_stored, _computed, _services):
        part(definitions, nodes, edges)
    for bundle in bundles:
        if bundle.contract.project == definitions.project:
            _bundle(bundle, nodes, edges)
    for edge in edges:
        for node in (edge.source, edge.target):
            nodes.setdefault(node, "not registered any more")
    return LineageGraph.of(nodes, edges)


def tree_json(graph: LineageGraph, node: Node) -> dict[str, Any]:
    """A node with everything up and down from it, as plain data: nodes once, edges by the places of their nodes."""
    listed = [*graph.reached(node, downstream=False), node, *graph.reached(node, downstream=True)]
    place = {each: index for index, each in enumerate(dict.fromkeys(listed))}
    edges = [edge for each in place for edge in graph.downstream(each) if edge.target in place]
    return {
        "node": {"kind": node.kind.value, "name": node.name},
        "nodes": [{"kind": each.kind.value, "name": each.name, "about": graph.nodes[each]} for each in place],
        "edges": [
            {"from": place[edge.source], "to": place[edge.target], **({"note": edge.note} if edge.note else {})}
            for edge in edges
        ],
    }


def _stored(definitions: DefinitionSet, nodes: dict[Node, str], edges: list[Edge]) -> None:
    for entity in definitions.entities.values():
        nodes[Node(NodeKind.ENTITY, entity.name)] = entity.description
    for view in definitions.views.values():
        node = Node(NodeKind.VIEW, view.name)
        nodes[node] = view.description
        if view.source is not None:
            source = Node(NodeKind.SOURCE, view.source.name)
            nodes[source] = view.source.path or view.source.kind
            edges.append(Edge(source, node))
        edges += [Edge(Node(NodeKind.ENTITY, name), node, "keys") for name in view.entities]
        for feature in view.features:
            made = Node(NodeKind.FEATURE, f"{view.name}:{feature.name}")
            nodes[made] = feature.description
            edges.append(Edge(node, made))
    for stream in definitions.streams.values():
        made = Node(NodeKind.STREAM, stream.name)
        nodes[made] = stream.description
        edges.append(Edge(made, Node(NodeKind.VIEW, stream.view), "aggregates"))


def _computed(definitions: DefinitionSet, nodes: dict[Node, str], edges: list[Edge]) -> None:
    for computed in definitions.on_demand.values():
        node = Node(NodeKind.ON_DEMAND, computed.name)
        nodes[node] = computed.description
        edges += [Edge(Node(NodeKind.VIEW, view), node, "reads") for view in computed.inputs]
        for feature in computed.features:
            made = Node(NodeKind.FEATURE, f"{computed.name}:{feature.name}")
            nodes[made] = feature.description
            edges.append(Edge(node, made))


def _services(definitions: DefinitionSet, nodes: dict[Node, str], edges: list[Edge]) -> None:
    for service in definitions.services.values():
        node = Node(NodeKind.SERVICE, service.name)
        nodes[node] = service.description
        for use in service.uses:
            edges += [Edge(Node(NodeKind.FEATURE, f"{use.view}:{name}"), node) for name in use.features]


def _bundle(bundle: BundleReads, nodes: dict[Node, str], edges: list[Edge]) -> None:
    node = Node(NodeKind.BUNDLE, bundle.digest)
    nodes[node] = bundle.name
    used = bundle.used
    for view, feature, column in read_columns(bundle):
        note = "" if column in used else "read, not used"
        edges.append(Edge(Node(NodeKind.FEATURE, f"{view}:{feature}"), node, note))
    for role in bundle.roles:
        endpoint = Node(NodeKind.ENDPOINT, role.endpoint)
        nodes.setdefault(endpoint, "")
        edges.append(Edge(node, endpoint, role.role))


def read_columns(bundle: BundleReads) -> Iterator[tuple[str, str, str]]:
    """(view, feature, column of the contract) of everything that a bundle reads."""
    for view in bundle.contract.views:
        for feature in view.features:
            yield view.view, feature.name, column_name(view.name, feature.name)
    for computed in bundle.contract.on_demand:
        for feature in computed.features:
            yield computed.name, feature.name, column_name(computed.name, feature.name)


def _is_named(node: Node, text: str) -> bool:
    if node.name == text:
        return True
    if node.kind is NodeKind.BUNDLE:
        return len(text) >= _DIGEST_PREFIX_MIN and node.name.startswith(text)
    return node.kind is NodeKind.FEATURE and node.name.replace(":", "__", 1) == text
