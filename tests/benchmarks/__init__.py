"""Benchmarks: ratios within one run, medians of rounds in turns, nothing asserted.

    make bench                                # all parts, about eight minutes
    make bench BENCH="calls streaming"        # some of them
    make bench BENCH=--markdown               # with the table as Markdown, for docs/benchmarks.md

Servers and loads are processes of their own, and can be run by hand: see `load`, `reader`, `bare` and `handlers`.
The machine should have nothing else to do: on a busy one, only the CPU time of a call or an image means something.
Triton goes into .tools/triton by itself; where it cannot be installed, the table says so.
"""
