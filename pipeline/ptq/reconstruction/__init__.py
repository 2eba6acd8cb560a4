"""Block reconstruction: the numbers of a quantized graph, learned from calibration data. All of it needs PyTorch.

reconstruct.py        the whole of it: blocks in order, then all at once; what is kept
parts.py              where a graph is cut into blocks
crops.py              pieces of samples at the inputs of a part
training.py           one part, taught
fake_quantization.py  what is learned, and its way into the graph's constants
torch_graph.py        a part of a graph that runs in torch; torch_operators.py: its operators
spectral_loss.py      the log-mel as a loss
"""
