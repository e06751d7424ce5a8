"""Where the flows run: deployments, pools, images, templates."""
