"""The network: tensors in, tensors out. No file, no token string, no HTTP."""
