"""Networks: encoders, attention and heads as plain ``nn.Module``s that need no Lightning."""
