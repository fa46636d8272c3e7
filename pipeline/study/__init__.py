"""Sweeps: summaries of many budgets by several methods under Ray Tune, and how few synthetic users are enough.

`config` says which trials there are, `space` what is searched, `placement` what a trial takes of a node. `bench` does
one trial in one process, `tuning` many of them under Tune, `run` the whole sweep. Others import these modules by
name: the process of a trial draws no figures, and so is spared Matplotlib.
"""
