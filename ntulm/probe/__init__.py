"""Classifiers on frozen vectors: `stage.run`."""
