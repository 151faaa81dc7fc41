"""The version of tgc, where every floor can read it."""

VERSION = "0.1.0"
