"""The DSL: lazy tensors, tracing, compiled functions and transformations of functions."""
