"""MLflow's scoring formats on the models of a real data plane, with MLflow's own models and clients."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import httpx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from tests.behaviour import serving_tools
from tests.behaviour.serving_tools import Plane
from tests.conftest import new_settings

from ondol.records.release import ModelManifest
from ondol.records.rollout import Route
from ondol.store import releases, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

pytestmark = pytest.mark.slow

X = serving_tools.matrix(200, 3)
Y = (X[:, 0] > 0).astype(int)
PLAIN = LogisticRegression().fit(X, Y)
TABLE = pd.DataFrame({"age": [20, 41, 67], "member": [True, False, True], "plan": ["basic", "프로", "basic"]})
JSON = {"content-type": "application/json"}


# In a process of its own: MLflow warns while it is imported, and a model's code must be found without this module.
MODEL = """
    import mlflow, numpy as np, pandas as pd, sys

    class Discount(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            assert model_input.dtypes["age"] == np.int64  # the signature is enforced: whole numbers, booleans and text
            assert model_input.dtypes["member"] == np.bool_
            plus = np.where(model_input["plan"] == "basic", 0.0, 5.0)
            return list((model_input["age"] / 10 + 10 * model_input["member"] + plus).round(2))

    table = pd.DataFrame({"age": [20], "member": [True], "plan": ["basic"]})
    signature = mlflow.models.infer_signature(table, [1.0])
    mlflow.pyfunc.save_model(sys.argv[1], python_model=Discount(), signature=signature, pip_requirements=["mlflow"])
    """
CLIENTS = """
    import json, sys
    import mlflow, numpy as np, pandas as pd
    from mlflow.deployments import get_deploy_client
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    url, table, rows = sys.argv[1], pd.DataFrame(json.loads(sys.argv[2])), np.array(json.loads(sys.argv[3]))
    host, port = url.removeprefix("http://").split(":")
    split = {"dataframe_split": table.to_dict(orient="split")}
    one = ScoringServerClient(host, port + "/endpoints/plain")
    one.wait_server_ready()
    whole = ScoringServerClient(host, port)  # two models are served, so the root does not know which
    whole.ping()
    try:
        whole.invoke(rows)
    except Exception as error:
        refused = str(error)
    print(json.dumps({
        "deployments": get_deploy_client(url).predict(endpoint="discount", inputs=split)["predictions"],
        "scoring": one.invoke(rows)["predictions"],
        "version": one.get_version() == mlflow.__version__,
        "table": ScoringServerClient(host, port + "/endpoints/discount").invoke(table).get_predictions()[0].tolist(),
        "refused": refused,
    }))
    """


def python(program: str, *arguments: str) -> str:
    """Run a program that uses MLflow and return what it prints last."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rpartition("\n")[2]


EXPECTED = [12.0, 9.1, 16.7]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("invocations")
    home = new_settings(folder)
    python(MODEL, str(folder / "discount"))
    with Store(home.database) as store, serving_tools.running(home, store) as plane:
        plane.serve("plain", PLAIN, folder / "plain")
        digest = Blobs(home.blobs).put_path(folder / "discount")
        made = releases.put(store, "discount", ModelManifest(digest, str(folder / "discount"), format="mlflow"))
        routes.put(store, Route("discount", "model", made.digest))
        plane.wait_for("discount", made.digest)
        yield plane


def score(plane: Plane, service: str, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return plane.client.post(f"/endpoints/{service}/invocations", content=content, headers={**JSON, **named})


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": TABLE.to_dict(orient="split")},
        {"dataframe_split": TABLE[["plan", "age", "member"]].to_dict(orient="split")},
        {"dataframe_records": TABLE.to_dict(orient="records"), "params": {}},
        {"instances": TABLE.to_dict(orient="records")},
        {"inputs": TABLE.to_dict(orient="list")},
        {"inputs": TABLE.to_dict(orient="records")},
    ],
)
def test_every_format_of_a_table_is_the_same_table(plane: Plane, body: Any) -> None:
    answer = score(plane, "discount", body)
    assert (answer.status_code, answer.json()) == (200, {"predictions": EXPECTED})


def test_a_csv_is_read_with_the_columns_types(plane: Plane) -> None:
    kinds = {"content_type": "text/csv; charset=utf-8"}
    assert score(plane, "discount", TABLE.to_csv(index=False), **kinds).json() == {"predictions": EXPECTED}
    plain = pd.DataFrame(X[:4], columns=["a", "b", "c"]).to_csv(index=False)
    assert score(plane, "plain", plain, **kinds).json() == {"predictions": PLAIN.predict(X[:4]).tolist()}
    with_index = score(plane, "discount", TABLE.to_csv(), **kinds)
    assert (with_index.status_code, with_index.json()["way_out"]) == (400, "Write it with to_csv(index=False).")


def test_a_model_without_names_takes_rows_in_order(plane: Plane) -> None:
    expected = {"predictions": PLAIN.predict(X[:2]).tolist()}
    rows = X[:2].tolist()
    records = [dict(zip("abc", row, strict=True)) for row in rows]
    for body in (
        {"inputs": rows},
        {"instances": rows},
        {"dataframe_split": {"data": rows}},
        {"dataframe_split": {"columns": [0, 1, 2], "index": [7, 8], "data": rows}},
        {"dataframe_records": records},
    ):
        assert score(plane, "plain", body).json() == expected
    assert score(plane, "plain", {"dataframe_records": [records[0], {"x": 1}]}).status_code == 400


def test_mlflows_own_clients(plane: Plane) -> None:
    url = plane.settings.data.url
    found = json.loads(python(CLIENTS, url, TABLE.to_json(), json.dumps(X[:3].tolist())))
    assert "x-ondol-service" in found.pop("refused")
    expected = PLAIN.predict(X[:3]).tolist()
    assert found == {"deployments": EXPECTED, "scoring": expected, "version": True, "table": EXPECTED}
    named = plane.client.post("/invocations", json={"inputs": X[:1].tolist()}, headers={"x-ondol-service": "plain"})
    assert named.status_code == 200
    assert plane.client.get("/endpoints/nobody/ping").status_code == 404


GOOD = {"columns": ["age", "member", "plan"], "data": [[20, True, "basic"]]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"[", "$"),
        ([], "$"),
        ({}, "$"),
        ({"dataframe_split": GOOD, "inputs": []}, "inputs"),
        ({"messages": []}, "$"),
        ({"dataframe_split": GOOD, "signature_name": "x"}, "signature_name"),
        ({"dataframe_split": GOOD, "params": {"temperature": 1}}, "params"),
        ({"dataframe_split": [1]}, "dataframe_split"),
        ({"dataframe_split": {**GOOD, "dtype": "x"}}, "dataframe_split.dtype"),
        ({"dataframe_split": {**GOOD, "data": []}}, "dataframe_split.data"),
        ({"dataframe_split": {**GOOD, "index": [1, 2]}}, "dataframe_split.index"),
        ({"dataframe_split": {**GOOD, "data": [[1, True]]}}, "dataframe_split.data[0]"),
        ({"dataframe_split": {**GOOD, "data": [[1.5, True, "basic"]]}}, "dataframe_split.data[0][0]"),
        ({"dataframe_split": {**GOOD, "data": [[1, 3, "basic"]]}}, "dataframe_split.data[0][1]"),
        ({"dataframe_split": {**GOOD, "data": [[1, True, 7]]}}, "dataframe_split.data[0][2]"),
        ({"dataframe_split": {**GOOD, "columns": ["age", "age", "plan"]}}, "dataframe_split.columns"),
        ({"dataframe_split": {**GOOD, "columns": ["age", "member", "x"]}}, "dataframe_split.columns[2]"),
        ({"dataframe_records": [{"age": 1, "member": True}]}, "dataframe_records[0].plan"),
        ({"inputs": {"age": [1], "member": [True, False], "plan": ["x"]}}, "inputs"),
        ({"inputs": {"age": 1}}, "inputs.age"),
    ],
)
def test_a_mistake_is_named_with_its_field(plane: Plane, body: Any, field: str) -> None:
    answer = score(plane, "discount", body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert answer.json()["error_code"] == "BAD_REQUEST"
    assert answer.json()["message"]


def test_other_content_types_are_refused(plane: Plane) -> None:
    for kind in ("application/vnd.apache.parquet", "text/csv; charset=latin-1", "text/plain"):
        assert score(plane, "plain", b"x", content_type=kind).status_code == 415


values = st.none() | st.booleans() | st.integers(-9, 99) | st.floats(-9, 9) | st.sampled_from(["basic", ""])
names = st.sampled_from(["age", "member", "plan", "x"])
tables = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.lists(names, max_size=4),
        "data": st.lists(st.lists(values, max_size=4), max_size=3),
        "index": st.lists(st.integers(), max_size=3),
    },
)
requests = st.dictionaries(
    st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs", "params"]),
    tables | st.lists(st.dictionaries(names, values), max_size=3) | st.dictionaries(names, st.lists(values)) | values,
    min_size=1,
    max_size=2,
)


@settings(max_examples=400, deadline=None)
@given(body=requests)
def test_malformed_tables_never_cause_a_server_error(plane: Plane, body: Any) -> None:
    answer = score(plane, "discount", body)
    assert answer.status_code in (200, 400), (body, answer.text)
    if answer.status_code == 200:
        (given_rows,) = (value for name, value in body.items() if name != "params")
        data = given_rows.get("data", given_rows.get("age")) if isinstance(given_rows, dict) else given_rows
        assert len(answer.json()["predictions"]) == len(data or [])


@settings(max_examples=500, deadline=None)
@given(body=st.text(alphabet='a,1"\n.日', max_size=30) | st.binary(max_size=12))
def test_malformed_csvs_never_cause_a_server_error(plane: Plane, body: Any) -> None:
    content = body.encode() if isinstance(body, str) else body
    answer = score(plane, "plain", content, content_type="text/csv")
    assert answer.status_code in (200, 400), answer.text
