"""Recommendation data, distilled: infinite-width autoencoders and synthetic-user summaries on Ray.

`infrec.jobs` is the command line, `infrec.pipeline` how data moves, `infrec.kernels` the numerics. In the repository
these are links to the three folders at its top; in an installation they are folders.
"""
