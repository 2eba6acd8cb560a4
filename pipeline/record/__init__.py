"""What a run leaves behind.

run_directory.py   its directory: claimed once, written atomically
run_log.py         what it has read, skipped and warned of
environment.py     what else its results depend on: versions, processor, commit
"""
