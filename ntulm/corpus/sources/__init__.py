"""Raw exports, one module per format, all read into one schema: `formats.read`."""
