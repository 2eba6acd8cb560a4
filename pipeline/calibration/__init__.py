"""The range engine: statistics of tensors, streamed over a calibration set, and the ranges derived from them."""
