"""Sweeps: Ray Tune makes summaries of many budgets by several methods, to find how few synthetic users are enough.

`config` defines the trials, `space` the hyper-parameters to search, and `placement` the resources that a trial takes on
a node. `bench` does one trial in one process, `tuning` runs many of them under Tune, and `run` does the whole sweep.
Other packages import these modules by name: the process of a trial draws no figures, so it need not load Matplotlib.
"""
