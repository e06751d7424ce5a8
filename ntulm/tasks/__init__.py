"""Labelled data sets, one module per benchmark: `stage.run`."""
