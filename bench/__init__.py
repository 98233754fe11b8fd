"""The benchmark: one and the same chain on a hand-written floor, on two peers and on sifaka; and each store.

`python -m bench` runs it and prints its tables. Nothing here is part of the library.
"""
