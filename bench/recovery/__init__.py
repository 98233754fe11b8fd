"""How well recovery learns: policies in the same simulated worlds, beside an oracle that knows them.

`python -m bench.recovery` plays it and prints its tables; figures and numbers go to `bench/out`. Nothing here is
part of the library.
"""
