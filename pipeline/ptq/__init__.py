"""Post-training algorithms that improve quality at no cost at inference.

algorithms.py                which of them a mode switches on, and their order
batch_norm_folding.py        batch norms inside the convolutions before them
cross_layer_equalization.py  equal ranges of channels
smooth_quant.py              outliers from activations into weights
remaining_constants.py       tables, norms and biases as integers where outputs stay as close
activation_pairs.py          weights as fine as activations allow where two products are added in 16 bits
length_weights.py            weights as int16 where int8 would change the length of the output
gptq.py                      weights rounded so that outputs are kept; second_moments.py: of the inputs of layers
bias_correction.py           the mean error of each channel, taken back in the bias
channel_groups.py            tensors whose channels can be rescaled together; channel_search.py: finds them
own_weights.py               weights of their own where others read them too
reconstructed.py             mode.reconstruct as the quantize stage sees it
reconstruction/              numbers of a quantized graph that are learned, in PyTorch
simulate.py                  a quantized graph, simulated in float
layer_order.py               nodes by level, tensors streamed over samples
"""
