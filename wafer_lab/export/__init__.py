"""ONNX graphs of trained networks, and a predictor that needs numpy and onnxruntime only."""
