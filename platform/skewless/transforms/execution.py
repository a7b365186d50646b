"""Running a fitted transform: the one code for a training table, a batch and a single row.

`plan.py` turns the graph into steps, `workspace.py` holds the memory they run in, `block_loader.py` brings tables of
blocks in; this module checks columns, runs them through in chunks, and hands out the tensor.

A row's result must not depend on what is computed beside it. NumPy's float64 arithmetic is exact IEEE 754, and
log1p, sin and cos were compared for single values, slices of 2 to 7, offset and strided arrays on kernels for
SSE4.2, AVX2 and AVX-512 without a differing bit (NumPy 2.4.6, x86-64, 240,000 values). Kernels make their
input contiguous before these three all the same, since NumPy does not promise it. Between CPUs log1p is another
matter: its AVX-512 kernel differed from the others in the last bit of 8 % of 200,000 float64 results, and in none
after rounding to float32. A bundle's golden vectors are what checks an unlike machine.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import Column
from skewless.transforms.block_loader import BlockLoader
from skewless.transforms.column_checks import check_columns
from skewless.transforms.operation import Vector
from skewless.transforms.plan import Plan, compile_plan
from skewless.transforms.row_program import ROWS_MAX
from skewless.transforms.workspace import Workspace

__all__ = ["CHUNK_ROWS", "PreparedTransform", "check_columns", "compile_plan", "to_float32"]

CHUNK_ROWS = 1_000
"""Rows computed at once: a few hundred lines of them stay near the caches, for a table of any size.

No power of two: lines 8,192 bytes apart all fall into the same places of the caches, and turning lines into rows then
took 0.30 µs a row instead of 0.07.
"""
KEPT_ROWS_MAX = 64
"""A workspace of up to so many rows is kept for the next call with as many: one each, 5 MB in all for 250 lines.

Of the larger ones the last is kept, for tables cut into equal parts; making one of a chunk's size takes 1 ms.
"""
LAYOUTS_MAX = 8
"""Layouts of tables that a transform stays prepared for. A gateway has one per bundle."""

_NAN = np.float32(np.nan)


class PreparedTransform:
    """A fitted transform, ready to run. Threads may share it: each call has a workspace to itself."""

    __slots__ = ("_kept", "_kept_large", "_loaders", "_plan", "inputs", "output_names")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._kept: dict[int, Workspace] = {}
        self._kept_large: dict[int, Workspace] = {}
        self._loaders: dict[ColumnLayout, BlockLoader] = {}
        self.inputs = tuple((each.name, each.dtype) for each in plan.inputs)
        self.output_names = plan.output_names

    def apply(self, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        """The tensor (rows, outputs), float32, C-contiguous; columns that the transform does not read are ignored.

        A row's numbers depend on that row alone, bit for bit, whatever batch it comes in. A number too large for
        float32 becomes infinite; NaN and infinities that reach an output are handed on (NaN in its one usual bit
        pattern), as a model must stand them: `clean()` and `clip()` keep them out. Raises InvalidDefinition for a
        column that is missing, of another dtype or length, or null where it is declared not to be. For few rows a
        `ColumnTable` is several times faster than any other mapping.
        """
        if isinstance(columns, ColumnTable) and 0 < rows <= CHUNK_ROWS:
            loader = self._loaders.get(columns.layout) or self._add_loader(columns.layout)
            return loader.rows(columns, rows) if rows <= ROWS_MAX else self._apply_table(loader, columns, rows)
        return self._apply_columns(columns, rows)

    def _apply_table(self, loader: BlockLoader, table: ColumnTable, rows: int) -> NDArray[np.float32]:
        tensor = np.empty((rows, len(self.output_names)), dtype=np.float32)
        with np.errstate(all="ignore"):
            workspace = self._take(rows)
            loader.load(table, workspace)
            self._run(workspace, tensor)
        self._keep(workspace)
        return tensor

    def _apply_columns(self, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        plan = self._plan
        check_columns(plan.inputs, columns, rows)
        tensor = np.empty((rows, len(self.output_names)), dtype=np.float32)
        read = {name: columns[name] for name, _ in self.inputs}
        workspace: Workspace | None = None
        with np.errstate(all="ignore"):
            for start in range(0, rows, CHUNK_ROWS):
                stop = min(start + CHUNK_ROWS, rows)
                if workspace is None or workspace.rows != stop - start:
                    if workspace is not None:
                        self._keep(workspace)
                    workspace = self._take(stop - start)
                _load_columns(plan, read, start, stop, workspace)
                self._run(workspace, tensor[start:stop])
        if workspace is not None:
            self._keep(workspace)
        return tensor

    def _run(self, workspace: Workspace, tensor: NDArray[np.float32]) -> None:
        workspace.run()
        tensor[...] = workspace.values[self._plan.output_lines].T
        unknown = np.isnan(tensor)
        if workspace.rows <= KEPT_ROWS_MAX or unknown.any():  # to look costs more than to write for few rows
            np.putmask(tensor, unknown, _NAN)
        workspace.forget()

    def _take(self, rows: int) -> Workspace:
        """A workspace that no other call has: taking one out of a dict is one step, whatever other threads do."""
        kept = self._kept if rows <= KEPT_ROWS_MAX else self._kept_large
        return kept.pop(rows, None) or _workspace(self._plan, rows)

    def _keep(self, workspace: Workspace) -> None:
        """For the next call. One that a call failed in is never kept."""
        if workspace.rows <= KEPT_ROWS_MAX:
            self._kept[workspace.rows] = workspace
        else:
            self._kept_large = {workspace.rows: workspace}

    def _add_loader(self, layout: ColumnLayout) -> BlockLoader:
        loader = BlockLoader(self._plan, layout)
        if len(self._loaders) >= LAYOUTS_MAX:
            self._loaders = {}
        self._loaders[layout] = loader
        return loader


def to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Rounded to float32, C-contiguous; too large becomes infinite, and NaN has its one usual bit pattern."""
    with np.errstate(all="ignore"):
        tensor = np.ascontiguousarray(values, dtype=np.float32)
    np.putmask(tensor, np.isnan(tensor), _NAN)
    return tensor


def _workspace(plan: Plan, rows: int) -> Workspace:
    workspace = Workspace(plan.lines, rows, plan.nodes)
    for line, value in plan.constants:
        workspace.values[line] = value
    for node, text in plan.text_constants:
        workspace.others[node] = Vector(np.full(rows, text, dtype=object), np.ones(rows, dtype=np.bool_))
    workspace.bind(plan.steps)
    return workspace


def _load_columns(plan: Plan, columns: Mapping[str, Column], start: int, stop: int, workspace: Workspace) -> None:
    for name, line in plan.number_inputs:
        column = columns[name]
        workspace.values[line] = column.values[start:stop]
        workspace.valid[line] = column.valid[start:stop]
    for name, node in plan.other_inputs:
        column = columns[name]
        workspace.others[node] = Vector(column.values[start:stop], column.valid[start:stop])
