"""Raw exports to posts, engagements, labels, splits and rejects: `stage.run`."""
