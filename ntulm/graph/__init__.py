"""The graph of NTUs: `stage.run`."""
