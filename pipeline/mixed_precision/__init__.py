"""`mode=auto`: which precision each node should have, found by measurement.

auto.py               the search, from calibration to the chosen graph
precision_groups.py   what is decided together, and what it may become
candidate_builder.py  from a choice to a quantized graph, fast
sensitivity.py        what each group loses alone, in the task's own metric
cost_model.py         what each group gains alone, in time on this machine and in bytes
greedy_knapsack.py    from losses and gains to paths of choices
candidate_search.py   along the paths by measuring: real loss, real latency, until the budget holds
candidates.py         what was tried: the budget, the Pareto front
default_budget.py     the metric and the limit where the user names none
decision_reasons.py  why a node is what it is, in words
search_report.py      what the report says of it

Losses of single nodes are measured, not modelled. That they add up is an assumption, which each measured step checks.
"""
