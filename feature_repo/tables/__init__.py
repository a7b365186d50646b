"""The Parquet tables of the example, one module per family, each declared as SQL over the table `flight`."""
