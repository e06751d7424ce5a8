"""When and where the DVC stages run: Prefect flows. They know ntulm only through its commands and the DVC stages."""
