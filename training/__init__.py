"""How a run is configured, optimised, saved and shown; the loop itself is train.py."""
