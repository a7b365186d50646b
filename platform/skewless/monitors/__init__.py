"""What the monitors found, for programs: drift by window and feature, alarms, unseen words, model metrics, parity.

>>> from skewless.monitors import open_monitors
>>> with open_monitors() as monitors:  # doctest: +SKIP
...     frame = monitors.drift("flight-delay", since="2013-05-01", until="2013-05-08").pandas()
"""

from skewless.adapters.monitor_rows import MonitorRows
from skewless.monitors.drift_rows import DriftAlarmRow, DriftFeature, DriftReading, UnseenWord
from skewless.monitors.monitors import Moment, Monitors, open_monitors
from skewless.monitors.result_rows import ModelMetric, ParityResult

__all__ = [
    "DriftAlarmRow",
    "DriftFeature",
    "DriftReading",
    "ModelMetric",
    "Moment",
    "MonitorRows",
    "Monitors",
    "ParityResult",
    "UnseenWord",
    "open_monitors",
]
