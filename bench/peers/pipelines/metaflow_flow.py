# mypy: ignore-errors
"""Metaflow: a chain of ten steps, or `--wide` a foreach of ten. A process per step, artifacts and state in files."""

import sys

from metaflow import FlowSpec, step

if "--wide" in sys.argv:
    sys.argv.remove("--wide")

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

else:

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
