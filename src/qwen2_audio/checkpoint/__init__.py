"""A checkpoint on disk: its configuration, its folder or hub download, its tensors, and the memory they need."""
