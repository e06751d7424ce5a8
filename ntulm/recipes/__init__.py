"""What `ntulm configure RECIPE` writes: `quickstart.yaml` is complete, each other recipe holds what differs from it."""
