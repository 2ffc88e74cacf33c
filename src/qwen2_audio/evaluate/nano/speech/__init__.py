"""Speech by espeak-ng, flite and festival, which training and testing nano need and using it does not."""
