"""ONNX graphs: questions about them, and changes to them.

source_graph.py       a graph as it was found: file, hash, size
session.py            ONNX Runtime sessions: their options, and how they are opened
rehearsal.py          graphs are opened in another process first, whose end is an error
rehearsal_child.py    that process
optimizer_crash.py    does opening a graph end the process?
exact_products.py     int8 weights as uint8: sums of products do not saturate
large_models.py       graphs above 2 GB: copies without weights, files with the weights beside them
shape_inference.py    types and shapes of all tensors
attributes.py         attributes of nodes
op_sets.py            sets of operator types, and how they differ
prepare.py            what a quantizer gets: unique names, opset, folded constants, shapes
local_functions.py    local functions, inlined under the names of their calls
inlined_branches.py   names of nodes of an If whose condition is constant
module_paths.py       the modules and calls of functions that a node lies in
fixed_sizes.py        axes that have one size, and what follows from that
fixed_inputs.py       inputs that are always the same, as constants
input_defaults.py     inputs with a value of their own: weights that are listed as inputs, optional inputs
noise_inputs.py       the noise that a graph draws, from inputs
node_patterns.py      which nodes a setting means
sparse_constants.py   sparse constants as ordinary ones
subgraph_scopes.py    names, with those inside the bodies of If, Loop and Scan
subgraph.py           parts of a graph: upstream of tensors, downstream of nodes
shorten_samples.py    shorter inputs for graphs that take inputs of any length
graph_editor.py       producers, consumers, constants, and a list of changes to make
topological_sort.py   nodes in the order of their data
symbolic_dims.py      which lengths of a graph are equal
states.py             outputs that a caller feeds back as inputs of the next call
declared_shapes.py    declared shapes that the operators contradict, dropped
shape_deciding.py     tensors that decide shapes: durations, lengths, masks
value_info.py         declared types and shapes
"""
