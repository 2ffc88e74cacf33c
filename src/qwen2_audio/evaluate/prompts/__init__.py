"""What models and judges are asked, word for word as the authors ask it; each with its source and licence."""
