"""Kubeflow Pipelines' own HTTP API, v2beta1, under `/apis/v2beta1` of the control process."""
