"""The training pipeline and the commands that run it."""
