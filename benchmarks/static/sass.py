"""Machine code of a cubin, by kernel: its loops, and what one turn of a loop reads, writes and executes."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from benchmarks.static.flow import natural_loops
from benchmarks.static.resources import tool

INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P[T0-9]+\s+)?([A-Z][A-Z0-9_.]*)\s*([^;]*);")
USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
BITS = {"256": 32, "128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


@dataclass(frozen=True)
class Instruction:
    """One line of SASS: `LDG.E.128 R8, …` under `label`s that jumps may name."""

    opcode: str
    operands: str
    labels: tuple[str, ...]
    conditional: bool

    @property
    def name(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def access(self) -> int:
        """Bytes that a thread moves from or to global memory; 0 for other instructions."""
        if self.name not in ("LDG", "STG", "LD", "ST", "LDGSTS"):
            return 0
        return next((BITS[part] for part in self.opcode.split(".") if part in BITS), 4)


@dataclass(frozen=True)
class Turn:
    """What a thread does in one turn of a loop, without the loops inside it; slow paths count as if taken."""

    read: int
    written: int
    narrowest: int
    opcodes: Counter[str]


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cubin, by its demangled name; stack and local memory hold what registers do not."""

    name: str
    symbol: str
    registers: int
    stack: int
    shared: int
    local: int
    code: tuple[Instruction, ...]

    @cached_property
    def loops(self) -> list["Loop"]:
        """Outermost first, in the order of the code."""
        return [Loop(self, *found) for found in natural_loops(self.code)]


@dataclass(frozen=True)
class Loop:
    """`depth` 0 is not inside another; `own` are the instructions that are in no loop inside this one."""

    kernel: Kernel
    depth: int
    own: tuple[int, ...]
    inner: tuple[int, ...]

    @property
    def turn(self) -> Turn:
        """The traffic of `own`."""
        code = [self.kernel.code[i] for i in self.own]
        moves = [x for x in code if x.access]
        return Turn(
            read=sum(x.access for x in moves if x.name in ("LDG", "LD", "LDGSTS")),
            written=sum(x.access for x in moves if x.name in ("STG", "ST")),
            narrowest=min((x.access for x in moves), default=0),
            opcodes=Counter(x.opcode for x in code),
        )


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _code(lines: list[str]) -> tuple[Instruction, ...]:
    out, labels = [], []
    for line in lines:
        label = re.match(r"(\.?\S+):\s*$", line)
        found = INSTRUCTION.search(line)
        if label:
            labels.append(label[1])
        elif found:
            out.append(Instruction(found[1], found[2], tuple(labels), "@" in line.partition(found[1])[0]))
            labels = []
    return tuple(out)


def kernels_of(cubin: bytes) -> list[Kernel]:
    """Every kernel of a cubin, by its demangled name."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = {found[0]: found[1:] for found in USAGE.findall(_output([tool("cuobjdump"), "-res-usage", file.name]))}
        sections = re.split(r"^\.text\.(\S+):$", _output([tool("nvdisasm"), "-c", file.name]), flags=re.MULTILINE)
    out = []
    for mangled, text in zip(sections[1::2], sections[2::2], strict=True):
        registers, stack, shared, local = map(int, usage[mangled])
        name = _output(["c++filt", mangled]).strip()
        out.append(Kernel(name, mangled, registers, stack, shared, local, _code(text.splitlines())))
    return out
