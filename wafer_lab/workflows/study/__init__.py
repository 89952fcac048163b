"""Studies: many runs of one command line, each with other values of the keys in a search space."""
