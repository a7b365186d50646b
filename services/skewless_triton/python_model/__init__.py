"""A bundle's Python model inside the python backend, on every target."""
