"""Structures of hosts and defects."""
