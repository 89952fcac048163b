"""Scores of predictions: pure functions of counts in `scores`, torchmetrics over them in `collection`."""
