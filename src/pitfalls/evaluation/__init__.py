"""How answers are read from a model, and how they are scored."""
