"""The Kubernetes resource API of this machine: what `kubectl` and its relatives speak to under `/k8s`."""
