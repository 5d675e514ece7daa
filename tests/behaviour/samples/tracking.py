# mypy: ignore-errors
"""Steps that track with MLflow by themselves, as its users write it."""

from kfp import dsl

component = dsl.component(base_image="python:3.11")


@component
def fit(experiment: str, depth: int) -> str:
    import mlflow
    from sklearn.tree import DecisionTreeClassifier

    mlflow.set_experiment(experiment)
    mlflow.sklearn.autolog(log_models=False, log_datasets=False)
    DecisionTreeClassifier(max_depth=depth).fit([[0], [1]], [0, 1])
    return mlflow.last_active_run().info.run_id


@component
def note(experiment: str, after: str) -> list:
    import mlflow

    mlflow.set_experiment(experiment)
    with mlflow.start_run() as outer, mlflow.start_run(nested=True, tags={"ondol.step": "by hand"}) as inner:
        mlflow.log_metric("noted", 1)
    return [outer.info.run_id, inner.info.run_id]


@dsl.pipeline(name="tracked")
def tracked(experiment: str, depth: int = 2):
    fitted = fit(experiment=experiment, depth=depth)
    fitted.set_env_variable("MLFLOW_RUN_CONTEXT", '{"team": "delays"}')
    # With a limit: even where steps share a process this one has one of its own.
    note(experiment=experiment, after=fitted.output).set_memory_limit("8G")
