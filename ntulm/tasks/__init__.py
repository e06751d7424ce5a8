"""Labelled data sets, one module a benchmark: `stage.run`."""
