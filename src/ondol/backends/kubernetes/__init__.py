"""Clusters, and whatever else speaks Kubernetes' resource API: the same client for all of them."""
