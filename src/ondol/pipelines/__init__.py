"""Runs KFP pipelines on this machine: compile, plan, cache, workers, resume.

Must not import kfp here (only the two programs `compile_child` and `worker_main` do, in processes of their own), and
must not know MLflow: the registry mirrors finished runs.
"""
