"""Several models that answer together: combined, judged, and what each of them adds."""
