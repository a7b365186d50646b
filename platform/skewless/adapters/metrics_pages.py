"""Pages of metrics in Prometheus' text format, read from the processes that tell them."""

import http.client
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from skewless.errors import Unavailable
from skewless.monitor_limits import METRICS_PAGE_BYTES_MAX, METRICS_PAGE_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """Samples by name: each its labels and its value."""

    samples: Mapping[str, tuple[tuple[Mapping[str, str], float], ...]]

    @classmethod
    def parse(cls, text: str) -> "MetricsPage":
        """Read a page. Raises ValueError for text that is none.

        >>> MetricsPage.parse('rows_total{endpoint="a"} 3.0\\n').sum("rows_total")
        3.0
        """
        found: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name].append((sample.labels, float(sample.value)))
        return cls({name: tuple(samples) for name, samples in found.items()})

    def matching(self, name: str, **labels: str) -> Iterator[tuple[Mapping[str, str], float]]:
        """Samples of a name that have all of these labels."""
        for told, value in self.samples.get(name, ()):
            if all(told.get(label) == wanted for label, wanted in labels.items()):
                yield told, value

    def sum(self, name: str, **labels: str) -> float:
        """Their sum; 0 where there is none."""
        return sum(value for _, value in self.matching(name, **labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Their sums by the values of one label, those that lack it left out."""
        sums: dict[str, float] = defaultdict(float)
        for told, value in self.matching(name, **labels):
            if label in told:
                sums[told[label]] += value
        return dict(sums)


def read_page(url: str) -> MetricsPage:
    """The page `/metrics` of a base URL such as `http://127.0.0.1:8101`. Raises Unavailable, also for other pages."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=METRICS_PAGE_TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        reply = connection.getresponse()
        body = reply.read(METRICS_PAGE_BYTES_MAX + 1)
        if reply.status != http.HTTPStatus.OK:
            raise Unavailable(url, f"answers {reply.status} to /metrics")
        if len(body) > METRICS_PAGE_BYTES_MAX:
            raise Unavailable(url, f"its page of metrics has more than {METRICS_PAGE_BYTES_MAX:,} bytes")
        return MetricsPage.parse(body.decode())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable(url, f"its metrics cannot be read: {error}") from error
    finally:
        connection.close()
