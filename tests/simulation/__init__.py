"""A simulation of whole servers and clients with a seed: time, processes, network and disk are simulated, the rest is real.

One event loop runs every process. Time jumps to the next timer, so that a minute takes a tenth of a second.
"""
