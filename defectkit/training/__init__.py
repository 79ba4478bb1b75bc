"""Training: what is minimised, how, and the engine that every model shares."""
