"""A checkpoint on disk: its configuration, where it lies, its tensors, and whether they fit this machine."""
