"""Grafana's dashboards as code: what people on call look at, one module per dashboard, written as JSON for Grafana."""
