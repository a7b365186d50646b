"""Where a process is: the stack of every thread, and of every task of an event loop, as text."""

import asyncio
import io
import sys
import threading
import traceback

_FRAMES_MAX = 30
_TASKS_MAX = 500


def stacks() -> str:
    """The stacks of this process now, without values of variables. Call from its event loop."""
    told = io.StringIO()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  # the one way to see other threads
        told.write(f"thread {names.get(ident, ident)}\n")
        told.writelines(traceback.format_stack(frame, limit=_FRAMES_MAX))
        told.write("\n")
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    for task in tasks[:_TASKS_MAX]:
        told.write(f"task {task.get_name()}\n")
        task.print_stack(limit=_FRAMES_MAX, file=told)
        told.write("\n")
    if len(tasks) > _TASKS_MAX:
        told.write(f"and {len(tasks) - _TASKS_MAX} tasks more\n")
    return told.getvalue()
