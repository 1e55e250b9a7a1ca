"""One training: its recipe, how it runs, how it is tracked, where its numbers come from."""
