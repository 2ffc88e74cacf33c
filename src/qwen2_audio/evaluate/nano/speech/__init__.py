"""Speech by espeak-ng and flite, which are needed to build and to test nano, never to use it."""
