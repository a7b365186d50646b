"""`python -m skewless_scheduler` runs the scheduler."""

from skewless_scheduler.main import run

if __name__ == "__main__":
    run()
