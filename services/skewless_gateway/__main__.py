"""`python -m skewless_gateway` runs the gateway."""

from skewless_gateway.main import run

if __name__ == "__main__":
    run()
