"""`python -m skewless_monitor` runs the monitor."""

from skewless_monitor.main import run

if __name__ == "__main__":
    run()
