"""The commands that use a model: embed, predict, suggest, similar, train-classifier. On top of `ntulm/inference/`."""
