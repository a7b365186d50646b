"""`python -m skewless_shipper` runs the shipper."""

from skewless_shipper.main import run

if __name__ == "__main__":
    run()
