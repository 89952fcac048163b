"""Losses on logits: pure functions in `functional` and `segmentation`, thin modules over them."""
