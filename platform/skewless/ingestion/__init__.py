"""What it means to take feature rows from producers: batches and their states, event times, restated rows."""
