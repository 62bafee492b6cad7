"""Writing LLVM's assembly: one function, from top to bottom, with loops and arithmetic on whole vectors.

What a kernel of this folder does is written with these few words instead of C. A ``Value`` is a number or a vector that
the processor holds; ``+``, ``-`` and ``*`` give instructions. Vectors have ``lanes`` floats. Memory is reached through
pointers and distances in bytes. Everything else, registers above all, LLVM sees to.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

INT, POINTER, BOOL = "i64", "ptr", "i1"


@dataclass(frozen=True)
class Value:
    """Something that was computed: the name that LLVM knows it by, and its type."""

    code: Code
    name: str
    type: str

    def _binary(self, whole: str, floating: str, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else self.code.constant(other, self.type)
        instruction = whole if self.type == INT else floating
        return self.code.emit(self.type, f"{instruction} {self.type} {self.name}, {other.name}")

    def __add__(self, other: Value | float) -> Value:
        return self._binary("add", "fadd", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._binary("sub", "fsub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._binary("mul", "fmul", other)

    def __or__(self, other: Value) -> Value:
        return self.code.emit(self.type, f"or {self.type} {self.name}, {other.name}")

    def __and__(self, other: Value) -> Value:
        return self.code.emit(self.type, f"and {self.type} {self.name}, {other.name}")


class Variable:
    """A place for values that loops change; LLVM keeps it in a register."""

    def __init__(self, code: Code, initial: Value) -> None:
        self.code, self.type = code, initial.type
        self._slot = code.slot(initial.type)
        self.set(initial)

    def get(self) -> Value:
        """Its value now."""
        return self.code.emit(self.type, f"load {self.type}, ptr {self._slot}")

    def set(self, value: Value) -> None:
        """Changes it."""
        self.code.line(f"store {self.type} {value.name}, ptr {self._slot}")


class Code:
    """A function without result.

    Args:
        name: of the function.
        parameters: its arguments, each with its type, ``INT`` or ``POINTER``.
        item: bytes of a float, 4 or 8.
        lanes: floats of a vector.
    """

    def __init__(self, name: str, parameters: Sequence[tuple[str, str]], item: int, lanes: int) -> None:
        self.name, self.item, self.lanes = name, item, lanes
        self.float = "float" if item == 4 else "double"
        self.vector = f"<{lanes} x {self.float}>"
        self._parameters = ", ".join(f"{kind} %{argument}" for argument, kind in parameters)
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._declared: dict[str, None] = {}
        self._count = 0
        self._block = "begin"
        self.arguments = {argument: Value(self, f"%{argument}", kind) for argument, kind in parameters}

    # Instructions -----------------------------------------------------------------------------------------------------

    def line(self, text: str) -> None:
        """One instruction without a result."""
        self._lines.append(f"  {text}")

    def emit(self, kind: str, text: str) -> Value:
        """One instruction whose result has type ``kind``."""
        name = self._fresh("v")
        self.line(f"%{name} = {text}")
        return Value(self, f"%{name}", kind)

    def constant(self, value: float, kind: str) -> Value:
        """A number, or a vector of it."""
        if kind in (INT, BOOL):
            return Value(self, str(int(value)), kind)
        scalar = kind.split()[-1].rstrip(">")
        if scalar == "float":
            value = struct.unpack("f", struct.pack("f", value))[0]
        text = "0x" + struct.pack(">d", value).hex().upper()
        if kind.startswith("<"):
            text = "<" + ", ".join([f"{scalar} {text}"] * int(kind[1:].split()[0])) + ">"
        return Value(self, text, kind)

    def zeros(self, kind: str | None = None) -> Value:
        """A vector of zeros, or a zero of another type."""
        return Value(self, "zeroinitializer", kind or self.vector)

    def slot(self, kind: str, count: int = 1) -> str:
        """The address of memory for ``count`` values, gone when the function ends."""
        name = f"%{self._fresh('s')}"
        self._entry.append(f"  {name} = alloca {kind}, i64 {count}, align 64")
        return name

    def variable(self, initial: Value) -> Variable:
        """A value that loops change."""
        return Variable(self, initial)

    def at(self, pointer: Value, distance: Value | int) -> Value:
        """The address ``distance`` bytes behind a pointer."""
        text = distance.name if isinstance(distance, Value) else str(distance)
        return self.emit(POINTER, f"getelementptr i8, ptr {pointer.name}, i64 {text}")

    def load(self, pointer: Value, kind: str | None = None) -> Value:
        """The vector, or another value, at an address."""
        kind = kind or self.vector
        return self.emit(kind, f"load {kind}, ptr {pointer.name}, align {self._align(kind)}")

    def store(self, value: Value, pointer: Value) -> None:
        """Writes a value to an address."""
        self.line(f"store {value.type} {value.name}, ptr {pointer.name}, align {self._align(value.type)}")

    def masked_load(self, pointer: Value, mask: Value) -> Value:
        """The vector at an address, with zeros where the mask is not set: nothing is read there."""
        kind, m = self.vector, mask.type
        return self.call(
            kind,
            f"llvm.masked.load.{self._suffix(kind)}.p0",
            (pointer, Value(self, str(self.item), "i32"), mask, self.zeros()),
            f"{kind} (ptr, i32, {m}, {kind})",
        )

    def masked_store(self, value: Value, pointer: Value, mask: Value) -> None:
        """Writes those lanes of a vector whose mask is set."""
        kind = value.type
        arguments = (value, pointer, Value(self, str(self.item), "i32"), mask)
        name = f"llvm.masked.store.{self._suffix(kind)}.p0"
        self._declared[f"declare void @{name}({kind}, ptr, i32, {mask.type})"] = None
        self.line(f"call void @{name}({', '.join(f'{v.type} {v.name}' for v in arguments)})")

    def first_lanes(self, count: Value) -> Value:
        """A mask of the first ``count`` lanes."""
        kind = f"<{self.lanes} x i64>"
        numbers = "<" + ", ".join(f"i64 {lane}" for lane in range(self.lanes)) + ">"
        wide = self.spread(count)
        return self.emit(f"<{self.lanes} x i1>", f"icmp slt {kind} {numbers}, {wide.name}")

    def spread(self, value: Value) -> Value:
        """A vector of one number."""
        kind = f"<{self.lanes} x {value.type}>"
        one = self.emit(kind, f"insertelement {kind} poison, {value.type} {value.name}, i32 0")
        return self.emit(kind, f"shufflevector {kind} {one.name}, {kind} poison, <{self.lanes} x i32> zeroinitializer")

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """A vector of these lanes of two, those of the second counted on."""
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        text = f"shufflevector {a.type} {a.name}, {b.type} {b.name}, <{len(lanes)} x i32> <{mask}>"
        return self.emit(a.type, text)

    def call(self, kind: str, name: str, arguments: Sequence[Value], signature: str) -> Value:
        """Calls one of LLVM's own functions."""
        result, given = signature.split(" (", 1)
        self._declared[f"declare {result} @{name}({given}"] = None
        return self.emit(kind, f"call {kind} @{name}({', '.join(f'{v.type} {v.name}' for v in arguments)})")

    def fma(self, a: Value, b: Value | float, c: Value) -> Value:
        """``a * b + c``, rounded once."""
        b = b if isinstance(b, Value) else self.constant(b, a.type)
        return self.call(
            a.type, f"llvm.fma.{self._suffix(a.type)}", (a, b, c), f"{a.type} ({a.type}, {a.type}, {a.type})"
        )

    def compare(self, how: str, a: Value, b: Value) -> Value:
        """``how`` as LLVM names it: ``slt`` and ``eq`` for whole numbers, ``ogt``, ``ole``, ... for floats."""
        lead = a.type.split(" x ")[0] if a.type.startswith("<") else ""
        result = f"{lead} x i1>" if lead else BOOL
        word = "fcmp" if self.float in a.type else "icmp"
        return self.emit(result, f"{word} {how} {a.type} {a.name}, {b.name}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        """``a`` where the condition holds, else ``b``."""
        return self.emit(a.type, f"select {condition.type} {condition.name}, {a.type} {a.name}, {b.type} {b.name}")

    def largest(self, limit: Value, x: Value) -> Value:
        """The larger of both; ``x`` where it is NaN."""
        return self.select(self.compare("ogt", limit, x), limit, x)

    def smallest(self, limit: Value, x: Value) -> Value:
        """The smaller of both; ``x`` where it is NaN."""
        return self.select(self.compare("olt", limit, x), limit, x)

    def least(self, a: Value, b: Value) -> Value:
        """The smaller of two whole numbers."""
        return self.select(self.compare("slt", a, b), a, b)

    # Control ----------------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, start: Value | int, stop: Value | int, step: Value | int = 1) -> Iterator[Value]:
        """``for i in range(start, stop, step)``; the body is what is written inside the block."""
        first, last, by = (self._number(value) for value in (start, stop, step))
        head, body, end = self._fresh("head"), self._fresh("body"), self._fresh("end")
        before = self._block
        self.line(f"br label %{head}")
        self._label(head)
        counter = Value(self, f"%{self._fresh('i')}", INT)
        place = len(self._lines)
        self.line("")  # written when the last block of the body is known
        inside = self.compare("slt", counter, last)
        self.line(f"br i1 {inside.name}, label %{body}, label %{end}")
        self._label(body)
        yield counter
        following = self.emit(INT, f"add nsw i64 {counter.name}, {by.name}")
        self._lines[place] = (
            f"  {counter.name} = phi i64 [ {first.name}, %{before} ], [ {following.name}, %{self._block} ]"
        )
        self.line(f"br label %{head}")
        self._label(end)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is written inside the block is done where the condition holds."""
        inside, end = self._fresh("then"), self._fresh("end")
        self.line(f"br i1 {condition.name}, label %{inside}, label %{end}")
        self._label(inside)
        yield
        self.line(f"br label %{end}")
        self._label(end)

    def text(self) -> str:
        """The module."""
        return "\n".join(
            [
                *self._declared,
                f"define void @{self.name}({self._parameters}) {{",
                "begin:",
                *self._entry,
                *self._lines,
                "  ret void",
                "}",
            ]
        )

    def _number(self, value: Value | int) -> Value:
        return value if isinstance(value, Value) else self.constant(value, INT)

    def _label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self._block = name

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _align(self, kind: str) -> int:
        if kind in (INT, POINTER):
            return 8
        return {"i8": 1, "i16": 2, "i32": 4}.get(kind.split()[-1].rstrip(">"), self.item)

    def _suffix(self, kind: str) -> str:
        scalar = {"float": "f32", "double": "f64"}
        if not kind.startswith("<"):
            return scalar[kind]
        count, of = kind[1:-1].split(" x ")
        return f"v{count}{scalar[of]}"
