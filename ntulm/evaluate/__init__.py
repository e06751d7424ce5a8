"""Every system against `text`, with intervals: `stage.run`."""
