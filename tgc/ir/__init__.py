"""The graph IR: typed tensor operations, pure, hash-consed, with regions for control flow."""
