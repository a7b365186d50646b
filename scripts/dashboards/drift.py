"""Which features moved, by how much, and whether an alarm is open."""

from scripts.dashboards.panels import DashboardText, Row, lines, number, table

_AT = 'endpoint=~"$endpoint",bundle=~"$bundle"'
_LIVE = f'{_AT},role="live"'

DRIFT = DashboardText(
    uid="skewless-drift",
    title="Skewless / Drift",
    says="Which features moved against training or the same hours of recent weeks, and whether an alarm is open.",
    guide="docs/drift.md",
    chosen={"endpoint": "skewless_drift_rows_total", "bundle": "skewless_drift_alarm_open"},
    rows=(
        Row(
            "Now",
            (
                number(
                    "Open alarms",
                    "`skewless drift status` says which features moved and since when; `drift report` makes the page.",
                    f"sum(skewless_drift_alarm_open{{{_LIVE}}})",
                    alarms=1.0,
                    width=6,
                ),
                number(
                    "Highest level",
                    "In heights of an alarm: it opens at 1.",
                    f"max(skewless_drift_alarm_level{{{_LIVE}}})",
                    warns=0.7,
                    alarms=1.0,
                    width=6,
                ),
                number(
                    "Calibrated",
                    "Share of models whose alarms come at the promised rate; the others are too new to tell.",
                    f"avg(skewless_drift_calibrated{{{_LIVE}}})",
                    unit="percentunit",
                    width=6,
                ),
                number(
                    "Behind",
                    "Files of the log store that wait to be counted.",
                    "sum(skewless_drift_files_waiting)",
                    warns=100.0,
                    width=6,
                ),
            ),
        ),
        Row(
            "Detector",
            (
                lines(
                    "Level",
                    "How high the detector stands, by model; an alarm opens at 1 and closes once it has come down.",
                    (f"max by (endpoint, bundle) (skewless_drift_alarm_level{{{_LIVE}}})", "{{endpoint}} {{bundle}}"),
                    width=12,
                    alarms=1.0,
                ),
                lines(
                    "Broken contracts",
                    "Nulls, unseen values, a constant, no traffic: things that need no statistics.",
                    (f"sum by (rule) (skewless_drift_breaks{{{_LIVE}}})", "{{rule}}"),
                    width=12,
                    alarms=1.0,
                ),
            ),
        ),
        Row(
            "Features",
            (
                table(
                    "Furthest from the reference",
                    "Level of each feature, in heights of an alarm.",
                    f"topk(20, max by (endpoint, feature) (skewless_drift_feature_level{{{_LIVE}}}))",
                ),
                table(
                    "Stability index beside training, last day",
                    "Below what chance makes of it (next panel) it says nothing.",
                    f'topk(20, max by (endpoint, feature) (skewless_drift_feature_psi{{{_LIVE},span="day"}}))',
                ),
                lines(
                    "Stability index over chance",
                    "How much more the index of the last day is than chance alone makes of it.",
                    (
                        f'topk(8, max by (feature) (skewless_drift_feature_psi{{{_LIVE},span="day"}}'
                        f' - skewless_drift_feature_psi_floor{{{_LIVE},span="day"}}))',
                        "{{feature}}",
                    ),
                    width=12,
                ),
                lines(
                    "Nulls",
                    "Share of null values over the last hour, of the features that have most.",
                    (f"topk(8, max by (feature) (skewless_drift_feature_null_ratio{{{_LIVE}}}))", "{{feature}}"),
                    unit="percentunit",
                    width=12,
                ),
                lines(
                    "Unseen values",
                    "Share of values that training never saw.",
                    (f"topk(8, max by (feature) (skewless_drift_feature_unseen_ratio{{{_LIVE}}}))", "{{feature}}"),
                    unit="percentunit",
                    width=12,
                ),
                lines(
                    "Traffic that was counted",
                    "Predictions of the newest window, by model.",
                    (f"max by (endpoint, bundle) (skewless_drift_window_rows{{{_LIVE}}})", "{{endpoint}} {{bundle}}"),
                    width=12,
                ),
            ),
        ),
    ),
)
