"""A model's encoder and slots as an ONNX graph: written from torch, measured, and run by onnxruntime."""
