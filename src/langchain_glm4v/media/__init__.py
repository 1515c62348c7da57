"""Turns files into parts of a request."""
