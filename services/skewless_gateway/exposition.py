"""Metrics of several workers as one page: each sample gets its worker's label, each metric is described once.

Sums would not do: when a worker is started again its counters begin at 0, and a sum that falls looks like a restart of
all of them. By worker, each series is reset by itself, which is what `rate` is made for.
"""

from collections.abc import Mapping

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_END = b"# EOF\n"
_LABEL = "worker"


def wants_open_metrics(accept: bytes | None) -> bool:
    """Whether a scraper takes OpenMetrics, which alone has exemplars. Whoever names it prefers it, as Prometheus does.

    >>> wants_open_metrics(b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2")
    True
    """
    return accept is not None and b"application/openmetrics-text" in accept


def joined(*pages: bytes) -> bytes:
    """Pages of different metrics as one; where one says that it ends, the whole does.

    >>> joined(b"a 1\\n# EOF\\n", b"b 2\\n# EOF\\n")
    b'a 1\\nb 2\\n# EOF\\n'
    """
    end = _END if any(page.endswith(_END) for page in pages) else b""
    return b"".join(page.removesuffix(_END) for page in pages) + end


def merge_expositions(pages: Mapping[str, bytes]) -> bytes:
    """One page of Prometheus' text format out of one per worker, by its name.

    >>> page = b"# HELP up Up.\\n# TYPE up gauge\\nup 1.0\\n"
    >>> print(merge_expositions({"0": page, "1": page}).decode(), end="")
    # HELP up Up.
    # TYPE up gauge
    up{worker="0"} 1.0
    up{worker="1"} 1.0
    """
    end = _END if any(page.endswith(_END) for page in pages.values()) else b""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for worker, page in pages.items():
        label = f'{_LABEL}="{worker}"'
        name = ""
        for line in page.removesuffix(_END).decode().splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                comments, _ = families.setdefault(name, ([], []))
                if line not in comments and len(comments) < 2:
                    comments.append(line)
            elif line:
                families[name][1].append(_labelled(line, label))
    lines = [line for comments, samples in families.values() if samples for line in (*comments, *samples)]
    return ("\n".join(lines) + "\n").encode() + end if lines else end


def _labelled(sample: str, label: str) -> str:
    """A sample's line with one label more. A name has neither space nor brace, so the first of them ends it."""
    brace, space = sample.find("{"), sample.find(" ")
    if 0 <= brace < space:
        return f"{sample[:brace]}{{{label},{sample[brace + 1 :]}"
    return f"{sample[:space]}{{{label}}}{sample[space:]}"
