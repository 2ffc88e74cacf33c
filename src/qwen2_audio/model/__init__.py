"""The network: tensors in, tensors out. It knows no files, no token strings and no HTTP."""
