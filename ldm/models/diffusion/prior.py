"""The parts of a batch with class pictures, which keep a model's idea of a class while it learns one of it."""

SUBJECT, REG = "train", "reg"
