"""The command line: one module a job, with its options, progress and exit code. No numerics."""
