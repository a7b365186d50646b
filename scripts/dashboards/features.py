"""What the gateway served: statuses and ages of features, and what quality gates let through."""

from scripts.dashboards.panels import DashboardText, Row, lines, number, table

_AT = 'endpoint=~"$endpoint"'
_LIVE = f'{_AT},role="live"'
_STATUSES = f"sum(rate(skewless_feature_statuses_total{{{_AT}}}[5m]))"


def _share(status: str) -> str:
    """Share of served values with a status."""
    return f'(sum(rate(skewless_feature_statuses_total{{{_AT},status="{status}"}}[5m])) or vector(0)) / {_STATUSES}'


FEATURES = DashboardText(
    uid="skewless-features",
    title="Skewless / Features",
    says="What was served to models: statuses and ages of features, and what quality gates let through.",
    guide="docs/quality.md",
    chosen={"endpoint": "skewless_feature_statuses_total"},
    rows=(
        Row(
            "Now",
            (
                number(
                    "Served as stored",
                    "Share of values with status ok or null, which training saw too.",
                    f'sum(rate(skewless_feature_statuses_total{{{_AT},status=~"ok|null"}}[5m])) / {_STATUSES}',
                    unit="percentunit",
                    warns=0.99,
                    alarms=0.9,
                    width=6,
                ),
                number(
                    "Missing",
                    "The online store has no such entity or field: not materialized, evicted, or a new entity.",
                    _share("missing"),
                    unit="percentunit",
                    warns=0.05,
                    alarms=0.2,
                    width=6,
                ),
                number(
                    "Stale",
                    "Older than the view's ttl: a materialization or a source is behind.",
                    _share("stale"),
                    unit="percentunit",
                    warns=0.01,
                    alarms=0.1,
                    width=6,
                ),
                number(
                    "Rows in quarantine",
                    "Set aside by quality suites; `skewless quality quarantine` says why, and takes them in again.",
                    "sum(skewless_quality_quarantined_rows) or vector(0)",
                    warns=1.0,
                    width=6,
                ),
            ),
        ),
        Row(
            "Statuses",
            (
                lines(
                    "Values by status",
                    "docs/online-reads.md says what each status means.",
                    (f"sum by (status) (rate(skewless_feature_statuses_total{{{_AT}}}[5m]))", "{{status}}"),
                    width=12,
                ),
                table(
                    "Features that are missing most, last hour",
                    "Counted over all traffic.",
                    f"topk(15, max by (endpoint, feature) (skewless_drift_feature_missing_ratio{{{_LIVE}}}))",
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            "Ages",
            (
                lines(
                    "Median age of a view's rows, as served",
                    "Beside it what training saw. Far above: the view is materialized less often than it was.",
                    (f"max by (view) (skewless_drift_age_median_seconds{{{_LIVE}}})", "{{view}}"),
                    (f"max by (view) (skewless_drift_age_training_median_seconds{{{_LIVE}}})", "{{view}} in training"),
                    unit="s",
                    width=12,
                ),
                table(
                    "Features that are stale most, last hour",
                    "Counted over all traffic.",
                    f"topk(15, max by (endpoint, feature) (skewless_drift_feature_stale_ratio{{{_LIVE}}}))",
                    unit="percentunit",
                ),
            ),
        ),
        Row(
            "Quality of batches",
            (
                lines(
                    "Expectations that the last batch does not meet",
                    "By view and severity; `skewless quality report` has the page of it.",
                    ("sum by (view, severity) (skewless_quality_failed_expectations)", "{{view}} {{severity}}"),
                ),
                lines(
                    "Rows set aside of the last batch",
                    "By view.",
                    ("sum by (view) (skewless_quality_set_aside_rows)", "{{view}}"),
                ),
                lines(
                    "Since a batch was judged",
                    "By view; a view that is judged no more is not materialized.",
                    ("time() - max by (view) (skewless_quality_last_run_timestamp_seconds)", "{{view}}"),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Near cache",
            (
                lines(
                    "Hits",
                    "Share of hashes that were answered without asking the store; none where it is off.",
                    (
                        'sum(rate(skewless_near_cache_lookups_total{outcome="hit"}[5m]))'
                        " / sum(rate(skewless_near_cache_lookups_total[5m]))",
                        "hits",
                    ),
                    unit="percentunit",
                    width=12,
                ),
                lines(
                    "Memory",
                    "Bytes kept.",
                    ("sum(skewless_near_cache_bytes)", "bytes"),
                    unit="bytes",
                    width=12,
                ),
            ),
        ),
    ),
)
