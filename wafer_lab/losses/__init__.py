"""Losses on logits: pure functions in `functional`, thin modules over them in `modules`."""
