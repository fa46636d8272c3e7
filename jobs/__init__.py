"""The command line. Each job is one module, with its options, progress and exit code. There are no numerics here."""
