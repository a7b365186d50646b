"""The models of the example, one module per model."""
