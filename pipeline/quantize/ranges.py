"""TEMP"""

import onnx

from pipeline.session import open_session


def measured_ranges(model, samples, tensors, mode, threads, seed, advance):
    m = onnx.ModelProto()
    m.CopyFrom(model)
    have = {o.name for o in m.graph.output}
    gin = {i.name for i in m.graph.input}
    for t in tensors:
        if t not in have and t not in gin:
            m.graph.output.append(onnx.helper.make_tensor_value_info(t, 1, None))
    s = open_session(m, threads)
    r = {}
    for x in samples:
        names = [o.name for o in s.get_outputs()]
        o = dict(zip(names, s.run(names, dict(x.inputs))))
        o.update(x.inputs)
        for t in tensors:
            a = o[t]
            lo, hi = float(a.min()), float(a.max())
            l, h = r.get(t, (0.0, 0.0))
            r[t] = (min(l, lo), max(h, hi))
        advance()
    return r
