"""What a process and its children hold: memory that is theirs, descriptors, threads."""

from dataclasses import dataclass
from pathlib import Path

import psutil

_KIB = 1024


@dataclass(frozen=True, slots=True)
class ProcessSize:
    """Sums over a process and its children. `pss_bytes` counts shared pages by their share."""

    pss_bytes: int
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.pss_bytes / _KIB**2:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"


def size_of(pid: int) -> ProcessSize:
    """What the process of that id and its children hold now."""
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    return ProcessSize(
        sum(_pss_bytes(each.pid) for each in family),
        sum(each.num_fds() for each in family),
        sum(each.num_threads() for each in family),
    )


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pss":
            return int(value.split()[0]) * _KIB
    raise AssertionError(f"the kernel tells no Pss of process {pid}")
