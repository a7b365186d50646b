"""Statistics of what a model reads and gives: fixed bins from training, counted alike in training and in service."""
