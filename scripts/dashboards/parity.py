"""Whether what was served is what training would have seen, and why not."""

from scripts.dashboards.panels import DashboardText, Row, lines, number, table

_AT = 'endpoint=~"$endpoint"'
_ENTITY = f'{_AT},stratum="entity"'

PARITY = DashboardText(
    uid="skewless-parity",
    title="Skewless / Parity",
    says="Whether what was served is what a point-in-time computation gives, and why not.",
    guide="docs/parity.md",
    chosen={"endpoint": "skewless_parity_predictions"},
    rows=(
        Row(
            "Now",
            (
                number(
                    "Equal values",
                    "Of the sampled predictions of the last day. `skewless parity status` names causes and examples.",
                    f'min(skewless_parity_equal_ratio{{{_ENTITY},level="values"}})',
                    unit="percentunit",
                    warns=0.9999,
                    alarms=0.999,
                    width=6,
                ),
                number(
                    "Equal predictions",
                    "Computed again from what the offline store says.",
                    f'min(skewless_parity_equal_ratio{{{_ENTITY},level="predictions"}})',
                    unit="percentunit",
                    warns=0.9999,
                    alarms=0.999,
                    width=6,
                ),
                number(
                    "Compared in the last day",
                    "Predictions of the sample.",
                    f"sum(skewless_parity_predictions{{{_ENTITY}}})",
                    width=6,
                ),
                number(
                    "Waiting",
                    "Sampled predictions whose sources have not passed them yet.",
                    f"sum(skewless_parity_backlog_predictions{{{_AT}}})",
                    width=6,
                ),
            ),
        ),
        Row(
            "Mismatches",
            (
                table(
                    "By view and cause, at least",
                    "Lower bounds of the shares. docs/parity.md says what to do about each cause; "
                    "`skewless features repair` mends those of the online store.",
                    f'max by (endpoint, view, cause) (skewless_parity_rate{{{_ENTITY},bound="low"}}) > 0',
                    unit="percentunit",
                    width=24,
                ),
                lines(
                    "Equal, by level",
                    "From stored values to predictions: the first level that falls says where to look.",
                    (f"min by (endpoint, level) (skewless_parity_equal_ratio{{{_ENTITY}}})", "{{endpoint}} {{level}}"),
                    unit="percentunit",
                    width=12,
                ),
                lines(
                    "By cause",
                    "Share of the sampled predictions that differ for it.",
                    (f'max by (cause) (skewless_parity_rate{{{_ENTITY},bound="low"}})', "{{cause}}"),
                    unit="percentunit",
                    width=12,
                ),
            ),
        ),
        Row(
            "How far the comparison is",
            (
                lines(
                    "Sources behind",
                    "How far source and materializations of a view are behind the endpoint's time.",
                    (f"max by (view) (skewless_parity_source_behind_seconds{{{_AT}}})", "{{view}}"),
                    unit="s",
                ),
                lines(
                    "Oldest that waits",
                    "Age of the oldest prediction that is not compared yet.",
                    (f"max by (endpoint) (skewless_parity_oldest_open_seconds{{{_AT}}})", "{{endpoint}}"),
                    unit="s",
                ),
                lines(
                    "Not compared",
                    "Bundles that cannot be computed again, and values that the log keeps nothing of.",
                    (f"sum by (endpoint) (skewless_parity_unchecked_predictions{{{_AT}}})", "{{endpoint}} predictions"),
                    (f"sum by (endpoint) (skewless_parity_not_comparable_values{{{_AT}}})", "{{endpoint}} values"),
                ),
            ),
        ),
    ),
)
