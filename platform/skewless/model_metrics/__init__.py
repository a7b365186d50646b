"""How good a model is, computed from predictions and their outcomes: values, intervals and estimates before labels."""
