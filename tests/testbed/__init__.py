"""A real control plane for tests: etcd and kube-apiserver as processes here; `build` makes the programs."""
