"""A trained model in the browser: one wafer at a time, or a file of them."""
