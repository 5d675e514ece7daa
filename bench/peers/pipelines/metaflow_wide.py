# mypy: ignore-errors
"""Metaflow: ten steps side by side. A process per step, artifacts and state in files."""

from metaflow import FlowSpec, step


class Flow(FlowSpec):
    @step
    def start(self):
        self.items = list(range(10))
        self.next(self.one, foreach="items")

    @step
    def one(self):
        self.number = self.input + 1
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(item.number for item in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    Flow()
