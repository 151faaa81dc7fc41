"""Kernel IR, and the schedules that turn fusion regions into it."""
