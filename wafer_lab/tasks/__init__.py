"""LightningModules: what is trained, on which loss, judged by which scores."""
