"""`ntulm serve`: a model over HTTP. Needs `ntulm[serve]`; docs/how-to/serve.md, docs/decisions/0041-the-server.md."""
