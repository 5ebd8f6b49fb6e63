"""Pairs made ready for the network, in the order in which a run sees them."""
