"""From the predictions table to intervals, figures and a report."""
