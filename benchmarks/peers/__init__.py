"""The contestants, one module each. A module imports its framework; a table by name is in `benchmarks.harness`."""
