"""`python -m scripts.dashboards` writes every dashboard; `--check` says whether the files are what the code makes."""

import sys
from pathlib import Path

import click

from scripts.dashboards.drift import DRIFT
from scripts.dashboards.features import FEATURES
from scripts.dashboards.gateway import GATEWAY
from scripts.dashboards.grafana import dashboard_json
from scripts.dashboards.models import MODELS
from scripts.dashboards.parity import PARITY
from scripts.dashboards.redis import REDIS
from scripts.dashboards.triton import TRITON

FOLDER = Path(__file__).parents[2] / "monitoring" / "grafana" / "dashboards"
DASHBOARDS = (GATEWAY, FEATURES, DRIFT, PARITY, MODELS, TRITON, REDIS)


def files() -> dict[Path, str]:
    """What each file is to hold."""
    return {FOLDER / f"{each.uid}.json": dashboard_json(each) for each in DASHBOARDS}


@click.command()
@click.option("--check", "is_check", is_flag=True, help="Write nothing; exit with 1 where a file is another.")
def main(is_check: bool) -> None:  # click's signature
    """Write Grafana's dashboards into monitoring/grafana/dashboards."""
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    stale += [path for path in FOLDER.glob("*.json") if path not in wanted]
    if is_check:
        for path in stale:
            click.echo(f"{path.name} is not what the code makes; run `python -m scripts.dashboards`", err=True)
        sys.exit(1 if stale else 0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        if path in wanted:
            path.write_text(wanted[path])
        else:
            path.unlink()
        click.echo(path.name, err=True)


if __name__ == "__main__":
    main()
