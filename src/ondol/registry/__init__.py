"""Releases, aliases, stages and lineage: the adapter between our records and MLflow's registry.

With `api/mlflow` the only room that knows MLflow. Must not decide who serves: that is the route's pointer.
"""
