"""What a run leaves behind.

run_directory.py   its directory, written atomically
run_log.py         what it has read, skipped and warned of
progress_bars.py   how far it has come, on a terminal
environment.py     what else its results depend on: versions, processor, commit
diagnosis.py       what the doctor finds
sweep_record.py    which runs a sweep has made, and which of them failed
"""
