"""A real control plane for tests: etcd and kube-apiserver as processes of this machine; `build` makes the programs."""
