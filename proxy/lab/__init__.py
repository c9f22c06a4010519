"""The lab: a small Kubernetes cluster of network namespaces on one machine, with faults, and what they lose."""
