"""The prediction log for programs: predictions, outcomes, both joined, and SQL over them, at any size the disk holds.

>>> from skewless.logs import open_log
>>> with open_log("predictions") as log:  # doctest: +SKIP
...     frame = log.joined("flight-delay", since="2013-05-01", until="2013-05-08").pandas()
"""

from skewless.adapters.log_rows import LogRows
from skewless.logs.log import Log, Moment, open_log
from skewless.serving.label_maturity import LabelMaturity
from skewless.serving.outcome_terms import OutcomeTerms

__all__ = ["LabelMaturity", "Log", "LogRows", "Moment", "OutcomeTerms", "open_log"]
