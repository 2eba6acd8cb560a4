"""ONNX graphs: questions about them, and changes to them.

source_graph.py       a graph as it was found: file, hash, size
session.py            ONNX Runtime sessions: their options, and how they are opened
large_models.py       graphs above 2 GB: copies without weights, files with the weights beside them
shape_inference.py    types and shapes of all tensors
attributes.py         attributes of nodes
op_sets.py            sets of operator types, and how they differ
prepare.py            what a quantizer gets: unique names, opset, folded constants, shapes
fixed_inputs.py       inputs that are always the same, as constants
input_defaults.py     inputs with a value of their own: weights that are listed as inputs, optional inputs
noise_inputs.py       the noise that a graph draws, as an input
node_patterns.py      which nodes a setting means
subgraph_scopes.py    names, with those inside the bodies of If, Loop and Scan
subgraph.py           parts of a graph: upstream of tensors, downstream of nodes
shorten_samples.py    shorter inputs for graphs that take inputs of any length
graph_editor.py       producers, consumers, constants, and a list of changes to make
topological_sort.py   nodes in the order of their data
symbolic_dims.py      which lengths of a graph are equal
shape_deciding.py     tensors that decide shapes: durations, lengths, masks
value_info.py         declared types and shapes
"""
