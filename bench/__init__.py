"""The benchmark: one and the same chain on a hand-written floor, on two peers and on sifaka.

`python -m bench` runs it and prints one table. Nothing here is part of the library.
"""
