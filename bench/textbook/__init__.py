"""The prediction service that tutorials teach, to compare with."""
