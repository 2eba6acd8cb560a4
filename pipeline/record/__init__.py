"""What a run leaves behind.

run_directory.py   its directory, written atomically
console.py         the terminal: results on standard output, all else on standard error
run_log.py         what it has read, skipped, noted and warned of
report_end.py      the report of a run that was killed
progress_bars.py   how far it has come: bars on a terminal, else a line every 20 seconds
environment.py     what else its results depend on: versions, processor, commit
diagnosis.py       what the doctor finds
sweep_record.py    which runs a sweep has made, and which of them failed
"""
