"""Sparse constants as ordinary ones, which is what quantizers and ONNX's shape inference know."""

import numpy as np
import onnx
from onnx import numpy_helper

from pipeline.graph.subgraph_scopes import graphs_of


def make_dense(graph: onnx.GraphProto) -> None:
    """Give a graph, and the bodies in it, ordinary constants in the place of sparse ones, in place."""
    for scope in graphs_of(graph):
        for sparse in scope.sparse_initializer:
            values = numpy_helper.to_array(sparse.values)
            indices = numpy_helper.to_array(sparse.indices)
            dense = np.zeros(list(sparse.dims), values.dtype)
            flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), dense.shape)
            dense.reshape(-1)[flat] = values
            scope.initializer.append(numpy_helper.from_array(dense, sparse.values.name))
        del scope.sparse_initializer[:]
