"""The champion: its place in MLflow's registry, and its use."""
