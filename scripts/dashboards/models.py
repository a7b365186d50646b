"""How good models are, once outcomes have come, and how candidates do beside live."""

from scripts.dashboards.panels import DashboardText, Row, lines, table

_AT = 'endpoint=~"$endpoint"'
_WHOLE = f'{_AT},slice=""'

MODELS = DashboardText(
    uid="skewless-models",
    title="Skewless / Models",
    says="How good models are, once outcomes have come, and how candidates do beside live.",
    guide="docs/model-metrics.md",
    chosen={"endpoint": "skewless_bundle_live"},
    rows=(
        Row(
            "Newest mature period",
            (
                table(
                    "Metrics",
                    "Of all rows; `skewless model-metrics show` has bounds, slices and earlier periods.",
                    f"max by (endpoint, bundle, role, metric) (skewless_model_metric{{{_WHOLE}}})",
                ),
                table(
                    "Less than the hold-out had",
                    "AUROC of the bundle's own hold-out less that of the newest mature period.",
                    f'max by (endpoint, bundle) (skewless_model_reference{{{_AT},metric="auroc"}})'
                    f' - max by (endpoint, bundle) (skewless_model_metric{{{_WHOLE},metric="auroc",role="live"}})',
                    warns=0.02,
                    alarms=0.05,
                ),
                lines(
                    "AUROC, with its bounds",
                    "Live bundles.",
                    *(
                        (
                            f'max by (endpoint) ({name}{{{_WHOLE},metric="auroc",role="live"}})',
                            f"{{{{endpoint}}}} {bound}".strip(),
                        )
                        for name, bound in (
                            ("skewless_model_metric", ""),
                            ("skewless_model_metric_low", "low"),
                            ("skewless_model_metric_high", "high"),
                        )
                    ),
                    width=12,
                ),
                lines(
                    "Expected before its outcomes",
                    "What the detector's reweighting expects of the newest period.",
                    (
                        f'max by (endpoint, metric) (skewless_model_estimate{{{_AT},role="live"}})',
                        "{{endpoint}} {{metric}}",
                    ),
                    width=12,
                ),
            ),
        ),
        Row(
            "Outcomes",
            (
                lines(
                    "Predictions with an outcome",
                    "Of the newest period, beside what is usual at its age. Far below: outcomes have stopped coming.",
                    (f'max by (endpoint) (skewless_model_outcome_share{{{_AT},role="live"}})', "{{endpoint}}"),
                    (
                        f'max by (endpoint) (skewless_model_outcome_share_expected{{{_AT},role="live"}})',
                        "{{endpoint}} usually",
                    ),
                    unit="percentunit",
                    width=12,
                ),
                lines(
                    "Periods that wait",
                    "To be computed by the monitor's job `metrics`.",
                    (f"max by (endpoint) (skewless_model_periods_waiting{{{_AT}}})", "{{endpoint}}"),
                    width=12,
                ),
            ),
        ),
        Row(
            "Candidates",
            (
                lines(
                    "Rows by role",
                    "While traffic is split or mirrored.",
                    (f"sum by (role, bundle) (rate(skewless_role_rows_total{{{_AT}}}[5m]))", "{{role}} {{bundle}}"),
                ),
                lines(
                    "Errors by role",
                    "Requests whose rows a role could not score; live answered them.",
                    (f"sum by (role, bundle) (rate(skewless_role_errors_total{{{_AT}}}[5m]))", "{{role}} {{bundle}}"),
                    alarms=1.0,
                ),
                lines(
                    "Latency by role, p99",
                    "From a request's arrival to the role's outputs.",
                    (
                        "histogram_quantile(0.99, sum by (role, bundle, le) "
                        f"(rate(skewless_role_seconds_bucket{{{_AT}}}[5m])))",
                        "{{role}} {{bundle}}",
                    ),
                    unit="s",
                ),
                lines(
                    "Shadow's score less live's",
                    "Mean since the gateway started, with bounds that hold whenever one looks.",
                    (
                        f"max by (endpoint, bundle, value) (skewless_shadow_difference{{{_AT}}})",
                        "{{bundle}} {{value}}",
                    ),
                    width=12,
                    lowest=None,
                ),
                lines(
                    "Labels that a shadow changes",
                    "Mirrored rows that it labels otherwise than live.",
                    (f"sum by (bundle) (rate(skewless_shadow_label_flips_total{{{_AT}}}[5m]))", "{{bundle}}"),
                    width=12,
                ),
            ),
        ),
    ),
)
