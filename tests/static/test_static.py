"""The static roofline: what it makes of code that is known, and that what it wrote down is what was promised."""

import csv
from collections import Counter

import pytest

from benchmarks.static import __main__ as static
from benchmarks.static.flow import natural_loops
from benchmarks.static.hardware import H100, H200
from benchmarks.static.report import README, filled
from benchmarks.static.rows import ARCHITECTURES, RESULTS, Row
from benchmarks.static.sass import Instruction, Kernel


def code(text: str) -> tuple[Instruction, ...]:
    """Lines of `label: @P0 OPCODE operands`, label and guard optional."""
    out = []
    for line in text.strip().splitlines():
        label, _, rest = line.rpartition(": ")
        guarded = rest.strip().startswith("@")
        opcode, _, operands = rest.strip().removeprefix("@P0 ").partition(" ")
        out.append(Instruction(opcode, operands, (label.strip(),) if label else (), guarded))
    return tuple(out)


NESTED = """
        BSSY B0, `(.done)
.outer: LDG.E.128 R4, [R2]
.inner: LDG.E.128 R8, [R2]
        LDG.E.64 R12, [R2]
        BSSY B1, `(.join)
        @P0 BRA `(.slow)
        FFMA R1, R1, R1, R1
.slow:  BSYNC B1
.join:  STG.E.128 [R2], R8
        @P0 BRA `(.inner)
        STG.E.U8 [R2], R3
        @P0 CALL.REL.NOINC `(.L_left)
        BRA `(.outer)
.L_left: BSYNC B0
.done:  EXIT
"""


def test_loops_and_their_traffic() -> None:
    kernel = Kernel("k", "k", 32, 0, 0, 0, code(NESTED))
    outer, inner = kernel.loops
    assert (outer.depth, inner.depth) == (0, 1)
    assert set(inner.own) == set(outer.inner)
    assert (inner.turn.read, inner.turn.written, inner.turn.narrowest) == (24, 16, 8)
    assert (outer.turn.read, outer.turn.written, outer.turn.narrowest) == (16, 1, 1)
    assert inner.turn.opcodes["FFMA"] == 1
    assert sum(inner.turn.opcodes.values()) == 8


def test_code_that_comes_after_a_loop_is_no_part_of_it() -> None:
    straight = code(".a: FFMA R1, R1, R1, R1\n @P0 BRA `(.a)\n STG.E [R2], R3\n EXIT")
    ((depth, own, inner),) = natural_loops(straight)
    assert (depth, own, inner) == (0, (0, 1), ())


def test_time_is_the_slower_of_memory_and_the_busiest_pipe() -> None:
    few, many = Counter({"FFMA": 1}), Counter({"MUFU.RSQ": 100})
    assert H100.seconds(3.35e12, few, 1) == pytest.approx(1.0)
    assert H200.seconds(4.8e12, few, 1) == pytest.approx(1.0)
    # 16 results a clock from each of 132 multiprocessors
    assert H100.seconds(0, many, 132 * 1.98e9 * 16 / 100) == pytest.approx(1.0)


def rows() -> list[dict[str, str]]:
    with RESULTS.open() as file:
        return list(csv.DictReader(file))


def test_no_kernel_spills_on_any_architecture() -> None:
    assert {row["arch"] for row in rows()} == {f"sm_{arch}" for arch in ARCHITECTURES}
    assert [row for row in rows() if int(row["spill_bytes"])] == []


def test_a_spill_is_an_error_once_the_table_is_written(monkeypatch) -> None:
    dry, wet = Row("op", "dry", "Triton", "sm_80", 32, 0, 0), Row("op", "wet", "Triton", "sm_90", 255, 64, 0)
    written: list[Row] = []
    monkeypatch.setattr(static, "write_csv", written.extend)
    monkeypatch.setattr(static, "write_readme", lambda: None)
    monkeypatch.setattr(static, "SOURCES", (lambda: [dry],))
    static.main()
    monkeypatch.setattr(static, "SOURCES", (lambda: [dry, wet, wet],))
    with pytest.raises(SystemExit) as stopped:
        static.main()
    assert str(stopped.value).splitlines()[1:] == ["op: wet (Triton) on sm_90, 64 bytes a thread"]
    assert written == [dry, dry, wet, wet]


def test_langevin_step_moves_no_byte_too_many_and_sixteen_at_a_time() -> None:
    hot = [row for row in rows() if row["kernel"].startswith("langevin_hot")]
    assert {row["chains"] for row in hot} == {"1", "4", "16"}
    for row in hot:
        own = 12 if "plain" in row["kernel"] else 20
        assert float(row["bytes"]) == float(row["floor_bytes"]) == own + 4 / int(row["chains"]), row
        assert row["narrowest_access"] == "16"


def test_the_table_says_what_was_written() -> None:
    assert filled(README.read_text()) == README.read_text()
