"""Sidestep: a node-local DNS cache and UDP proxy for Kubernetes."""

__version__ = "0.1.0"
