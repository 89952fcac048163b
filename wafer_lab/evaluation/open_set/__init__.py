"""Wafers unlike anything in training."""
