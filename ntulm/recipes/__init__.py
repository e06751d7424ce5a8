"""Complete, commented parameter files; `ntulm configure RECIPE` writes one of them to params.yaml."""
