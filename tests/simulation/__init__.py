"""A simulation with a seed of whole servers and clients: time, processes, network and disk are simulated.

All else is real: `serve`, `supervise`, their workers and the asyncio client run as they are.
One event loop runs every process. Time jumps to the next timer, so that a minute takes a tenth of a second.
"""
