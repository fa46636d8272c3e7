"""The report of a sweep: one HTML page with its figures and tables.

`findings` is what the sweep found; `page` is made of `sections`, with `figures` (drawn by `drawing` and
`coordinates`) and words (`wording`). Others import these modules by name: all but `findings` load Matplotlib.
"""
