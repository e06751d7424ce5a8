"""`ntulm init`: a project folder for the installed package; `pipeline.yaml` and `world.yaml` are the repository's."""
