# ruff: noqa: PTH103, PTH110, PTH123, PTH208, RUF013
# mypy: ignore-errors
"""Pipelines that ask for more than code: secrets, volumes, a workspace, limits, images."""

import functools

from kfp import dsl, kubernetes

component = functools.partial(dsl.component, base_image="python:3.11", install_kfp_package=False)


@component
def tell(variable: str, path: str) -> str:
    import os

    return f"{os.environ.get(variable, 'none')} {open(path).read() if os.path.exists(path) else 'none'}"


@component
def name_it() -> str:
    return "db"


@dsl.pipeline(name="secrets")
def secrets(path: str, name: str = "db", config: str = "tuning"):
    named = tell(variable="PASSWORD", path="")
    kubernetes.use_secret_as_env(named, secret_name=name, secret_key_to_env={"pass-word": "PASSWORD"})
    made = name_it()
    later = tell(variable="USER_NAME", path=path)
    kubernetes.use_secret_as_env(later, secret_name=made.output, secret_key_to_env={"user": "USER_NAME"})
    kubernetes.use_config_map_as_volume(later, config_map_name=config, mount_path="/tmp/ondol-test-config")
    absent = tell(variable="PASSWORD", path="")
    kubernetes.use_secret_as_env(absent, secret_name="no", secret_key_to_env={"k": "PASSWORD"}, optional=True)
    kubernetes.add_toleration(absent, key="gpu", operator="Exists", effect="NoSchedule")
    kubernetes.add_pod_label(absent, "team", "ml")
    field = tell(variable="TEAM", path="")
    kubernetes.add_pod_label(field, "team", "ml")
    kubernetes.use_field_path_as_env(field, env_name="TEAM", field_path="metadata.labels['team']")


@component
def write(text: str) -> str:
    import os

    with open("/tmp/ondol-test-volume/note.txt", "a") as file:
        file.write(text)
    return ",".join(sorted(os.listdir("/tmp/ondol-test-volume")))


@component
def read() -> str:
    return open("/tmp/ondol-test-volume/note.txt").read()


@dsl.pipeline(name="volumes")
def volumes():
    claim = kubernetes.CreatePVC(
        pvc_name_suffix="-notes", access_modes=["ReadWriteOnce"], size="5Mi", storage_class_name="standard"
    )
    first = write(text="a")
    kubernetes.mount_pvc(first, pvc_name=claim.outputs["name"], mount_path="/tmp/ondol-test-volume")
    second = write(text="b").after(first)
    kubernetes.mount_pvc(second, pvc_name=claim.outputs["name"], mount_path="/tmp/ondol-test-volume")
    third = read().after(second)
    kubernetes.mount_pvc(third, pvc_name=claim.outputs["name"], mount_path="/tmp/ondol-test-volume")
    kubernetes.DeletePVC(pvc_name=claim.outputs["name"]).after(third)


@component
def keep(workspace: str) -> str:
    import os

    os.makedirs(workspace, exist_ok=True)
    with open(workspace + "/kept.txt", "w") as file:
        file.write("kept")
    return workspace


@component
def look(workspace: str, table: dsl.Input[dsl.Dataset]) -> str:
    return open(workspace + "/kept.txt").read() + " " + open(table.path).read() + str(table.path.startswith(workspace))


@component
def append(workspace: str) -> int:
    with open(workspace + "/lines.txt", "a+") as file:
        file.write("line")
        return file.tell()


@dsl.pipeline(name="workspace", pipeline_config=dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi")))
def workspace(path: str):
    table = dsl.importer(artifact_uri=path, artifact_class=dsl.Dataset, download_to_workspace=True)
    kept = keep(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER)
    look(workspace=kept.output, table=table.output)
    once = append(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER).after(kept)
    append(workspace=dsl.WORKSPACE_PATH_PLACEHOLDER).after(once)


@component
def hog(megabytes: int) -> int:
    import time

    block = bytearray(megabytes * 1_000_000)
    time.sleep(1 if megabytes < 100 else 120)  # whoever is over the limit is there when somebody looks
    return len(block)


@dsl.pipeline(name="memory")
def memory(megabytes: int, limit: str = "300M"):
    hog(megabytes=megabytes).set_memory_limit(limit)


@component
def sleep_with_child(seconds: int, note: str):
    import subprocess
    import time

    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    with open(note, "w") as file:
        file.write(str(child.pid))
    time.sleep(seconds)


@dsl.pipeline(name="deadline")
def deadline(seconds: int, note: str):
    kubernetes.set_timeout(sleep_with_child(seconds=seconds, note=note), 1)


@component
def meet(mine: str, other: str, patience: float) -> bool:
    """Says whether the other step came while this one ran."""
    import os
    import time

    open(mine, "w").close()
    until = time.time() + patience
    while time.time() < until and not os.path.exists(other):
        time.sleep(0.01)
    met = os.path.exists(other) and not os.path.exists(other + ".ended")
    open(mine + ".ended", "w").close()
    return met


@dsl.pipeline(name="weights")
def weights(left: str, right: str, patience: float):
    for mine, other in ((left, right), (right, left)):
        meet(mine=mine, other=other, patience=patience).set_cpu_request("2").set_caching_options(False)


@dsl.container_component
def shout(word: str, number: int, said: dsl.OutputPath(str), copy: dsl.Output[dsl.Dataset], note: str = None):
    return dsl.ContainerSpec(
        image="tools/shout:1",
        command=["sh", "-c", 'printf "%s" "$*" > "$0"; mkdir -p "$(dirname "$1")"; printf "%s" "$2" > "$1"'],
        args=[
            said,
            copy.path,
            dsl.ConcatPlaceholder(["<", word, ">"]),
            number,
            dsl.IfPresentPlaceholder("note", then=["--note", note], else_=["no note"]),
        ],
    )


@component
def tell_dataset(copy: dsl.Input[dsl.Dataset]) -> str:
    return open(copy.path).read()


@dsl.pipeline(name="images")
def images(word: str, note: str = "n"):
    first = shout(word=word, number=3)
    shout(word=word, number=4, note=note)
    tell_dataset(copy=first.outputs["copy"])


@component
def pinned(number: int) -> int:
    return number


@dsl.pipeline(name="pinned")
def with_key(number: int):
    pinned(number=number).set_caching_options(True, cache_key="mine")


@component
def rows(table: dsl.Input[dsl.Dataset]) -> int:
    return len(open(table.path).read().split())


@dsl.pipeline(name="given")
def given(table: dsl.Input[dsl.Dataset]) -> int:
    return rows(table=table).output


@component
def small_one() -> int:
    return 1


@component
def large_one(megabytes: int, block: dsl.Output[dsl.Artifact]):
    with open(block.path, "wb") as file:
        file.write(bytes(megabytes * 1_000_000))


@dsl.pipeline(name="large")
def large(megabytes: int):
    large_one(megabytes=megabytes).after(small_one())
