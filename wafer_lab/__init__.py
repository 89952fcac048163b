"""wafer_lab: find out which model, loss and imbalance strategy recognises the defects on your wafers."""

__version__ = "0.1.0"
