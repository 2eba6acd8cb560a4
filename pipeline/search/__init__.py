"""Which precision each node should have, found by measurement: `mode=auto`.

groups.py        what is decided together, and what it may become
builder.py       from a choice to a quantized graph, fast
behind.py        the part of a graph that a change concerns
sensitivity.py   what each group loses alone, in the task's own metric
gains.py         what each group gains alone, in time on this machine and in bytes
path.py          from losses and gains to a path of choices: the greedy knapsack
latency.py       candidates beside their original, timed in turn
candidates.py    what was tried: the budget, the front
crops.py         shorter samples
defaults.py      the metric and the limit where the user names none
answer.py        what the report says of it
steps.py         along the path by measuring: real loss, real latency, until the budget holds

Losses of single nodes are measured, not modelled; that they add up is an assumption, which each measured step checks.
"""
