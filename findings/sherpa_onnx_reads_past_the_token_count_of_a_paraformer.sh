#!/usr/bin/env bash
# Question:  How many tokens does sherpa-onnx take from a Paraformer: as many as its output token_num says, or all rows?
# Versions:  sherpa-onnx 2.0.1; onnx 1.17.0; numpy 1.26.4; CPython 3.11, Linux x86-64.
# Behaviour: All rows of the first output, up to the first </s>; token_num is not read.
# Users:     who cuts the rows at token_num may get another transcript than the client writes. Where several
#            recordings are decoded together, rows that only pad the shorter ones are read too, unless the model says </s> there.
# Method:    a graph without layers gives five rows of different tokens a recording, and a count of two.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target tools \
  sherpa-onnx==2.0.1 onnx==1.17.0 numpy==1.26.4

cat > rows.py <<'PY'
import numpy as np
import onnx
import sherpa_onnx
from onnx import numpy_helper

GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
rows (float[N, T, 560] speech, int32[N] speech_lengths) => (float[N, R, 9] logits, int32[N] token_num) {
    size = Shape (speech_lengths)
    shape = Concat <axis = 0> (size, rest)
    logits = Expand (chosen, shape)
    zero = Sub (speech_lengths, speech_lengths)
    token_num = Add (zero, two)
}"""
TABLE = ["<blank>", "<s>", "</s>", "a", "b", "c", "d", "e", "<unk>"]


def heard(tokens):
    model = onnx.parser.parse_model(GRAPH)
    arrays = {
        "rest": np.array([5, 9]), "two": np.array([2], np.int32),
        "chosen": 9 * np.eye(9, dtype=np.float32)[None, [TABLE.index(token) for token in tokens]],
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    facts = {"vocab_size": "9", "lfr_window_size": "7", "lfr_window_shift": "6", "model_type": "paraformer",
             "neg_mean": ",".join(["0"] * 560), "inv_stddev": ",".join(["1"] * 560)}
    onnx.helper.set_model_props(model, facts)
    onnx.save(model, "rows.onnx")
    with open("tokens.txt", "w") as table:
        table.writelines(f"{token} {number}\n" for number, token in enumerate(TABLE))
    recogniser = sherpa_onnx.OfflineRecognizer.from_paraformer(paraformer="rows.onnx", tokens="tokens.txt")
    stream = recogniser.create_stream()
    stream.accept_waveform(16000, 0.1 * np.sin(np.arange(16000, dtype=np.float32)))
    recogniser.decode_stream(stream)
    return stream.result.tokens


print("sherpa-onnx", sherpa_onnx.__version__)
print("rows a b c d e, token_num 2:", *heard(["a", "b", "c", "d", "e"]))
print("rows a b c </s> e, token_num 2:", *heard(["a", "b", "c", "</s>", "e"]))
PY
PYTHONPATH=tools python3 rows.py | tee seen
diff seen - <<'SEEN'
sherpa-onnx 2.0.1
rows a b c d e, token_num 2: a b c d e
rows a b c </s> e, token_num 2: a b c
SEEN
echo "as described"
