"""What a GPU can do in a second, and the least time that counts of bytes and instructions leave it."""

from collections import Counter
from dataclasses import dataclass

PIPES = {
    "alu": (64, "LOP3 IADD3 VIADD SHF LEA ISETP FSETP SEL FSEL FMNMX IMNMX VIMNMX PRMT I2FP PLOP3 MOV SGXT"),
    "fma heavy": (64, "IMAD"),
    "fma": (128, "IMAD FFMA FMUL FADD FFMA2 FMUL2 FADD2"),
    "fp64": (64, "DFMA DMUL DADD DSETP"),
    "transcendental and conversion": (16, "MUFU I2F F2I F2F FRND POPC FLO"),
    "memory": (32, "LDG STG LDS STS LDSM LD ST SHFL ATOMG ATOMS RED LDGSTS LDC"),
}
"""Results a multiprocessor of compute capability 9.0 gives a clock, and the opcodes that share them."""
ISSUE = 128
"""Instructions that it starts a clock, counted by thread."""


@dataclass(frozen=True)
class Gpu:
    """As its data sheet has it: multiprocessors, boost clock (Hz), memory (bytes a second)."""

    multiprocessors: int
    clock: float
    bandwidth: float

    def clocks(self, opcodes: Counter[str]) -> float:
        """Of one multiprocessor for one thread to execute these, if the busiest pipe is always full."""
        by_name = Counter[str]()
        for opcode, count in opcodes.items():
            by_name[opcode.partition(".")[0]] += count
        pipes = [sum(by_name[name] for name in names.split()) / rate for rate, names in PIPES.values()]
        return max(opcodes.total() / ISSUE, *pipes)

    def seconds(self, bytes_moved: float, opcodes: Counter[str], threads: float) -> float:
        """max(bytes / bandwidth, instructions / rate) for `threads` threads that each execute `opcodes`."""
        return max(bytes_moved / self.bandwidth, threads * self.clocks(opcodes) / (self.multiprocessors * self.clock))


H100 = Gpu(132, 1.98e9, 3.35e12)
H200 = Gpu(132, 1.98e9, 4.8e12)
