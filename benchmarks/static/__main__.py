"""`python -m benchmarks.static`: compiles every GPU kernel, counts, writes results/static.csv and csrc/README.md."""

from benchmarks.static import cuda, triton_rows
from benchmarks.static.report import write_readme
from benchmarks.static.rows import RESULTS, write_csv

SOURCES = (cuda.rows, triton_rows.rows)


def main() -> None:
    """Every source of rows, in turn."""
    write_csv([row for rows in SOURCES for row in rows()])
    write_readme()
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
