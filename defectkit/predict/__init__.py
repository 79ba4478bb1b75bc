"""What is said of a new structure: ensembles, intervals, the guard, checks of physics."""
