"""What pretrained weights are worth at each number of labels."""
