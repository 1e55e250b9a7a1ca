"""The steps of the training pipeline."""
