"""Metrics: plain functions of arrays or texts.

metric_registry.py  what each metric means: unit, direction, version. Add a metric here.
tensor_metrics.py   any output: mse, relative_error, sqnr_db, cosine, max_abs_error
audio_metrics.py    waveforms and mels: log_mel_l1, mcd_db, mr_stft; alignment by dynamic time warping
decision_metrics.py  detectors: decision_auc, segment_f1
enhancement_metrics.py  denoisers: si_sdr_db, pause_floor_db
text_metrics.py     words and posteriors: wer_percent, cer_percent, deletion_percent, posterior_kl, duration_mae_frames
bootstrap.py        how sure a number is: intervals over utterances
"""
