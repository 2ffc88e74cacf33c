"""Jobs over a corpus: how full the engine is kept, how much memory it takes, and what kills cost."""
