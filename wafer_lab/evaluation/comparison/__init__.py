"""Runs against each other on the test wafers that they share."""
