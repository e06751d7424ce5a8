"""Raw exports, one module a format, all read into one schema: `formats.read`."""
