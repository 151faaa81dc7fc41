"""Passes over the graph IR: functions from module to module, and the pipelines made of them."""
