"""What a bundle reads from the feature store, and what the read values mean."""
