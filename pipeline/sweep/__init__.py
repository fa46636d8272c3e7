"""Budget sweeps with Ray Tune, and the report of what they found.

`config` says which trials there are, `space` what is searched, `room` what they take of a node; `trial` does one of
them in one process, `trials` many of them under Tune, `run` the whole sweep; `findings` is what it found, `report` and
`figures` show it.

Nothing is imported here: the process of a trial draws no figures.
"""
