# ruff: noqa: UP006, UP035, UP045, PTH103, PTH110, PTH118, PTH123, PTH208, SIM115
# mypy: ignore-errors
"""Pipelines that use what KFP offers, one function each; compiled by the tests with the real SDK."""

from typing import Dict, List, NamedTuple, Optional

from kfp import dsl
from kfp.dsl import (
    HTML,
    Artifact,
    ClassificationMetrics,
    Dataset,
    Input,
    InputPath,
    Markdown,
    Metrics,
    Model,
    Output,
    OutputPath,
    PipelineTaskFinalStatus,
)

component = dsl.component(base_image="python:3.11")


@component
def describe(
    whole: int, part: float, yes: bool, text: str, many: List[int], table: Dict[str, int], maybe: Optional[str] = None
) -> dict:
    kinds = {"whole": type(whole).__name__, "part": type(part).__name__, "yes": type(yes).__name__}
    kinds["many"] = [type(item).__name__ for item in many]
    kinds["table"] = {key: type(value).__name__ for key, value in table.items()}
    kinds["maybe"] = maybe
    kinds["text"] = text
    kinds["whole_value"] = whole
    return kinds


@component
def total(many: List[int]) -> int:
    return sum(many)


@component
def numbers(count: int) -> List[int]:
    return list(range(1, count + 1))


@dsl.pipeline(name="types")
def types(whole: int = 3, part: float = 2.0, yes: bool = True, text: str = "가나다 'quoted' {x}", big: int = 1):
    describe(whole=whole, part=part, yes=yes, text=text, many=[1, 2, 3], table={"n": 5})
    made = numbers(count=4)
    total(many=made.output)
    describe(whole=big, part=1.0, yes=False, text=f"{text} and {whole}", many=made.output, table={})


@component
def make(
    table: Output[Dataset],
    folder: Output[Model],
    page: Output[HTML],
    words: Output[Markdown],
    scores: Output[Metrics],
    curve: Output[ClassificationMetrics],
    note: OutputPath(str),
    lines: OutputPath("Dataset"),
) -> NamedTuple("Made", [("rows", int), ("ratio", float)]):
    import os
    from typing import NamedTuple

    with open(table.path, "w") as file:
        file.write("a,b\n1,2\n")
    table.metadata["rows"] = 1
    os.makedirs(folder.path)
    with open(os.path.join(folder.path, "weights.txt"), "w") as file:
        file.write("0.5")
    folder.framework = "none"
    with open(page.path, "w") as file:
        file.write("<p>hello</p>")
    with open(words.path, "w") as file:
        file.write("# hello")
    scores.log_metric("accuracy", 0.75)
    scores.log_metric("undefined", float("nan"))
    curve.log_roc_curve([0.0, 1.0], [0.0, 1.0], [1.0, 0.5])
    curve.log_confusion_matrix(["yes", "no"], [[3, 1], [2, 4]])
    with open(note, "w") as file:
        file.write("noted")
    with open(lines, "w") as file:
        file.write("line")
    print("printed by make")
    return NamedTuple("Made", [("rows", int), ("ratio", float)])(1, 0.5)


@component
def use(
    table: Input[Dataset],
    model: Input[Model],
    lines: InputPath("Dataset"),
    scores: Input[Metrics],
    rows: int,
    ratio: float,
    note: str,
    extra: Optional[Input[Artifact]] = None,
) -> str:
    import os

    with open(table.path) as file:
        header = file.readline().strip()
    with open(lines) as file:
        line = file.read()
    weights = os.listdir(model.path)
    parts = [
        header,
        line,
        note,
        rows,
        ratio,
        table.metadata,
        model.framework,
        weights,
        scores.metadata["accuracy"],
        extra,
    ]
    return repr(parts)


@dsl.pipeline(name="artifacts")
def artifacts():
    made = make()
    use(
        table=made.outputs["table"],
        model=made.outputs["folder"],
        lines=made.outputs["lines"],
        scores=made.outputs["scores"],
        rows=made.outputs["rows"],
        ratio=made.outputs["ratio"],
        note=made.outputs["note"],
    )


@component
def say(text: str) -> str:
    return text


@component
def write(text: str, out: Output[Dataset]):
    with open(out.path, "w") as file:
        file.write(text)


@component
def read(data: Input[Dataset]) -> str:
    with open(data.path) as file:
        return file.read()


@dsl.pipeline(name="choice")
def choice(coin: str = "heads", count: int = 4) -> str:
    flipped = say(text=coin)
    with dsl.If(flipped.output == "heads"):
        first = say(text="it was heads")
        first_file = write(text="heads file")
    with dsl.Elif(flipped.output == "tails"):
        second = say(text="it was tails")
        second_file = write(text="tails file")
    with dsl.Else():
        third = say(text="neither")
        third_file = write(text="no file")
    chosen = dsl.OneOf(first.output, second.output, third.output)
    read(data=dsl.OneOf(first_file.outputs["out"], second_file.outputs["out"], third_file.outputs["out"]))
    with dsl.If(count > 3, name="many"):
        say(text="many")
    return say(text=chosen).output


@component
def increase(number: int) -> int:
    return number + 1


@dsl.pipeline(name="twice")
def twice(number: int) -> int:
    first = increase(number=number)
    return increase(number=first.output).output


@dsl.pipeline(name="nested")
def nested(number: int = 5) -> int:
    inner = twice(number=number)
    return twice(number=inner.output).output


@component
def report(status: PipelineTaskFinalStatus) -> str:
    return f"{status.state} {status.pipeline_task_name} {status.error_message}"


@component
def fail(text: str) -> str:
    def deeper(value):
        return {}[value]

    return deeper(text)


@dsl.pipeline(name="exit-handler")
def exit_handler():
    last = report()
    with dsl.ExitHandler(exit_task=last):
        fail(text="missing key")


@dsl.pipeline(name="failing")
def failing(text: str = "missing key"):
    before = say(text="before")
    broken = fail(text=text).after(before)
    say(text=broken.output)
    say(text="beside")


@component
def flaky(counter: str) -> int:
    import os

    tries = int(open(counter).read()) if os.path.exists(counter) else 0
    with open(counter, "w") as file:
        file.write(str(tries + 1))
    if tries < 2:
        raise RuntimeError(f"try {tries}")
    return tries


@dsl.pipeline(name="retrying")
def retrying(counter: str):
    flaky(counter=counter).set_retry(3, backoff_duration="0s")


@component
def wait_for(mine: str, other: str, seconds: float) -> bool:
    """Succeeds only when the other step runs at the same time."""
    import os
    import time

    open(mine, "w").close()
    deadline = time.time() + seconds
    while time.time() < deadline:
        if os.path.exists(other):
            return True
        time.sleep(0.01)
    raise TimeoutError(f"{other} never came")


@dsl.pipeline(name="together")
def together(left: str, right: str):
    wait_for(mine=left, other=right, seconds=120.0)
    wait_for(mine=right, other=left, seconds=120.0)


@dsl.pipeline(name="imported")
def imported(path: str):
    data = dsl.importer(artifact_uri=path, artifact_class=Dataset, metadata={"from": "outside"})
    read(data=data.output)


@component
def contents(model: Input[Model]) -> List[str]:
    import os

    return sorted(os.listdir(model.path))


@dsl.pipeline(name="imported-model")
def imported_model(uri: str):
    model = dsl.importer(artifact_uri=uri, artifact_class=Model)
    contents(model=model.output)


@component
def count_line(path: str, text: str) -> str:
    with open(path, "a") as file:
        file.write(text + "\n")
    return text


@component
def hold(path: str, text: str, gate: str) -> str:
    """Writes its process id and a line, then waits for the gate file."""
    import os
    import time

    with open(path, "a") as file:
        file.write(f"{text} {os.getpid()}\n")
    while not os.path.exists(gate):
        time.sleep(0.02)
    return text


@dsl.pipeline(name="held")
def held(path: str, gate: str):
    first = count_line(path=path, text="first")
    second = hold(path=path, text="second", gate=gate).after(first)
    count_line(path=path, text="third").after(second)


@dsl.component(base_image="python:3.11", packages_to_install=["cowsay==6.1"])
def animal() -> str:
    import cowsay

    return cowsay.__version__


@dsl.pipeline(name="packaged")
def packaged():
    animal()


@component
def long_chain(number: int) -> int:
    return number + 1


@dsl.pipeline(name="chain")
def chain(number: int = 0):
    last = long_chain(number=number)
    for _ in range(9):
        last = long_chain(number=last.output)


@component
def pairs() -> List[Dict[str, int]]:
    return [{"a": 1, "b": 10}, {"a": 2, "b": 20}, {"a": 3, "b": 30}]


@component
def add(a: int, b: int) -> int:
    return a + b


@component
def join(files: Input[List[Dataset]]) -> str:
    texts = []
    for one in files or []:  # KFP gives None for an empty list
        with open(one.path) as file:
            texts.append(file.read())
    return ",".join(texts)


@dsl.pipeline(name="loops")
def loops(count: int = 3):
    made = numbers(count=count)
    with dsl.ParallelFor(made.output, parallelism=2) as number:
        first = increase(number=number)
        with dsl.If(number > 2):
            increase(number=first.output)
        text = write(text="file")
        with dsl.ParallelFor([10, 20]) as other:
            add(a=first.output, b=other)
    described = pairs()
    with dsl.ParallelFor(described.output) as pair:
        added = add(a=pair.a, b=pair.b)
    with dsl.ParallelFor([{"a": 7, "b": 8}]) as pair:
        add(a=pair.a, b=pair.b)
    total(many=dsl.Collected(added.output))
    total(many=dsl.Collected(first.output))
    join(files=dsl.Collected(text.outputs["out"]))


@dsl.container_component
def shell():
    return dsl.ContainerSpec(image="alpine", command=["echo", "hi"])


@dsl.pipeline(name="container")
def container():
    shell()


@component
def environment(name: str) -> str:
    import os

    return os.environ.get(name, "")


@dsl.pipeline(name="variables")
def variables():
    environment(name="FROM_FILE").set_env_variable("FROM_FILE", "in the file").set_caching_options(False)
    environment(name="FROM_CALLER").set_caching_options(False)


@component
def spawn(path: str):
    """Leaves a process behind and ends itself by a signal."""
    import os
    import signal
    import subprocess

    child = subprocess.Popen(["sleep", "600"])
    with open(path, "w") as file:
        file.write(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


@dsl.pipeline(name="killed")
def killed(path: str):
    spawn(path=path)


@component
def draw(number: int) -> float:
    import numpy as np

    return float(np.random.rand())


@dsl.pipeline(name="random-draws")
def draws():
    draw(number=1)
    draw(number=2)
