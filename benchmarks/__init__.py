"""tgc beside its peers and beside the limits of the machine. Run it with `python -m benchmarks`."""
