"""The bench model in other serving frameworks, each in an environment of its own, as its documentation has it."""
