"""How data moves, a room for each concern. The only part of infrec that imports ray.

From below: `storage`, `cluster`, `data`, `ingest`, `models`, `solvers`, `distillation`, `serving`, `report`, and at
the top `study` and `nightly`. A room imports from those before it and never the other way round.
"""
