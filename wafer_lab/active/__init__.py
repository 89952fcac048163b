"""Active learning: which wafers to label next, and what the labels were worth."""
