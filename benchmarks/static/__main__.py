"""`python -m benchmarks.static`: compiles every GPU kernel, counts, writes results/static.csv and csrc/README.md.

A kernel that spills is an error, once the table is written that shows it.
"""

from benchmarks.static import cuda, triton_rows
from benchmarks.static.report import write_readme
from benchmarks.static.rows import RESULTS, spilling, write_csv

SOURCES = (cuda.rows, triton_rows.rows)


def main() -> None:
    """Every source of rows, in turn.

    Raises:
        SystemExit: a kernel spills, with the name of each.
    """
    table = [row for rows in SOURCES for row in rows()]
    write_csv(table)
    write_readme()
    print(f"wrote {RESULTS}")
    if found := spilling(table):
        raise SystemExit("registers spill (give such a kernel a smaller tile or more registers):\n" + "\n".join(found))


if __name__ == "__main__":
    main()
