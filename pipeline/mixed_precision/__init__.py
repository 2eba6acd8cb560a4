"""`mode=auto`: which precision each node should have, found by measurement.

auto.py               the search, from calibration to the chosen graph
search_inputs.py      what it needs of the run
precision_groups.py   what is decided together, and what it may become
candidate_builder.py  from a choice to a quantized graph, fast
range_choice.py       how ranges follow from calibration
sensitivity.py        what each group loses alone, in the task's own metric
consecutive_parts.py  the float graph in parts, which all groups share
cost_model.py         what each group gains alone, in time on this machine and in bytes
utilities.py          what gains are worth, for the limits that are asked for
greedy_knapsack.py    from losses and gains to paths of choices
bisection.py          how far to go on a path, with few measurements
candidate_search.py   along the paths by measuring: real loss, real latency, until the budget holds
candidate_timing.py   how fast candidates are, each in the layouts that it may take
smaller_file.py       what the choice leaves in float, stored as integers
candidates.py         what was tried: the budget, the Pareto front
time_limit.py         how long the search may take, and will take about
default_budget.py     the metric and the limit where the user names none
decision_reasons.py  why a node is what it is, in words
search_report.py      what the report says of it

Losses of single nodes are measured, not modelled. That they add up is an assumption, which each measured step checks.
"""
