"""The report of a sweep: one HTML page with its figures and tables.

`findings` holds the results of the sweep. `page` consists of `sections`, each with one of the `figures` (drawn by
`drawing` and `coordinates`) and with words (`wording`). Other packages import these modules by name, because all but
`findings` load Matplotlib.
"""
