"""What computes one step of the engine: a forward pass over many sequences, on one device or on several."""
