"""Lineage for a terminal: a tree of what something is made of, and one of what is made of it."""

from collections.abc import Iterator

from skewless.features.lineage import Edge, LineageGraph, Node, NodeKind

_SHORT = 12
LINES_MAX = 200
"""Lines of one tree: a source of hundreds of features is better asked about by one of them, or as JSON."""


def lineage_lines(graph: LineageGraph, node: Node) -> list[str]:
    """A node, what it is made of and what is made of it, a line each; branches that were shown above are cut."""
    lines = [_told(graph, node)]
    for title, downstream in (("made of", False), ("used by", True)):
        tree = list(_branches(graph, node, downstream=downstream, indent="", seen={node}))
        if tree:
            lines += ["", title, *tree[:LINES_MAX]]
            if len(tree) > LINES_MAX:
                lines.append(f"… and {len(tree) - LINES_MAX} lines more; --json has all of it")
    return lines


def _branches(graph: LineageGraph, node: Node, *, downstream: bool, indent: str, seen: set[Node]) -> Iterator[str]:
    edges = graph.downstream(node) if downstream else graph.upstream(node)
    for number, edge in enumerate(edges, start=1):
        other = edge.target if downstream else edge.source
        is_last = number == len(edges)
        again = other in seen
        has_more = bool(graph.downstream(other) if downstream else graph.upstream(other))
        cut = "  (see above)" if again and has_more else ""
        yield f"{indent}{'└─ ' if is_last else '├─ '}{_told(graph, other)}{_note(edge)}{cut}"
        if not again:
            seen.add(other)
            yield from _branches(
                graph, other, downstream=downstream, indent=f"{indent}{'   ' if is_last else '│  '}", seen=seen
            )


def _told(graph: LineageGraph, node: Node) -> str:
    about = graph.nodes[node]
    if node.kind is NodeKind.BUNDLE:
        return f"bundle {node.name[:_SHORT]} {about}"
    if node.kind is NodeKind.SOURCE and about:
        return f"source {node.name} ({about})"
    return f"{node.kind.value} {node.name}"


def _note(edge: Edge) -> str:
    return f"  [{edge.note}]" if edge.note else ""
