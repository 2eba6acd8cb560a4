"""Quality: fp32 and quantized on the same inputs and the same noise.

evaluation.py   scores a model with quantized graphs against the original
both_models.py  the model as it was and as it has become, run on the same samples
asr_scorer.py, audio_scorer.py, tensor_scorer.py, tts_scorer.py    one kind of evaluation each
kinds_of_scorer.py  which of them an evaluation has
output_scores.py   the metrics of every output, and the worst of them
over_time.py       streaming models: whether the error grows over the steps of a sequence
by_length.py       recognisers: error rates by the length of the recordings
rollout.py         samples that are calls of one stream: each call gets the states of the call before
sample_scores.py   the scores of one sample, and how they become metrics
uncertainty.py     intervals over samples, and the worst samples
broken_speech.py   sentences at full scale or beside zero, where fp32's is not
quality_limits.py  which limits a model is held to, and where its losses lie
loss.py            the loss of a changed graph in one metric, again and again
early_rejection.py a loss that is surely too much, from some of the samples
node_errors.py     the error of every tensor along the graph
"""
