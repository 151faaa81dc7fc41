"""The functions of the Array API standard (2024.12), and a few more."""
