"""The embedding table: `stage.run`, `table.EmbeddingTable`."""
