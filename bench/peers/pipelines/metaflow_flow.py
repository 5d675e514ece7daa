# mypy: ignore-errors
"""Metaflow: a chain of ten steps. A process per step, artifacts and state in files."""

from metaflow import FlowSpec, step


class Flow(FlowSpec):
    @step
    def start(self):
        self.number = 0
        self.next(self.s2)

    @step
    def s2(self):
        self.number += 1
        self.next(self.s3)

    @step
    def s3(self):
        self.number += 1
        self.next(self.s4)

    @step
    def s4(self):
        self.number += 1
        self.next(self.s5)

    @step
    def s5(self):
        self.number += 1
        self.next(self.s6)

    @step
    def s6(self):
        self.number += 1
        self.next(self.s7)

    @step
    def s7(self):
        self.number += 1
        self.next(self.s8)

    @step
    def s8(self):
        self.number += 1
        self.next(self.s9)

    @step
    def s9(self):
        self.number += 1
        self.next(self.end)

    @step
    def end(self):
        self.number += 1


if __name__ == "__main__":
    Flow()
