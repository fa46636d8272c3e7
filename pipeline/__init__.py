"""The pipeline moves data between files, Ray workers and models. It is the only part of infrec that imports ray.

Each folder is a room for one concern. From the lowest up, the rooms are `storage`, `cluster`, `data`, `ingest`,
`models`, `solvers`, `distillation`, `serving`, `report`, and at the top `study` and `nightly`. A room imports only from
the rooms before it.
"""
