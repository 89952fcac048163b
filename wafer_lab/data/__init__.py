"""Files on disk -> store -> split -> batches."""
