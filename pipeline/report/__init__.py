"""The report: report.json, the table in the terminal, the page, several runs side by side.

schema.py             report.json as dataclasses; its parts are in the next three
benchmark_schema.py   speed, memory, time to load
evaluation_schema.py  quality
search_schema.py      what a search for the precision of each node has tried
report_file.py        the file: read, checked, written; every reader of a report.json comes here
writer.py             what the stages have given -> the report
verdict.py            the verdict in words
doctor_words.py       what the doctor has found, in words
try_next.py           what to try after a run
intervals.py          how sure the metrics are, and which samples are the worst
fitted_table.py       tables for terminals of any width
terminal.py           one run in the terminal
html/                 pages of one run, of several, and of all
op_families.py        operators and their integer kernels under one name
run_rows.py           a run as rows of a comparison
ranking.py            which runs may be ranked together, and in what order
compare_runs.py       several runs side by side
run_index.py          all runs below a directory
index_file.py         the page of them
comparison_table.py   the same in the terminal
sweep_callback.py     the comparison at the end of a sweep
"""
