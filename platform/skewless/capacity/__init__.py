"""How much hardware a load takes, from costs that were measured."""
