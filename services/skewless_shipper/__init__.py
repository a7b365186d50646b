"""Ships sealed segments of the prediction log to where they are kept."""
