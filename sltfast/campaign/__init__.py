"""A study as a file: checkpoints × settings × data sets × restrictions, measured cell by cell, resumable.

`configuration` reads the file, `cells` says what there is to measure and where it is kept, `cost` what it will take,
`running` measures it, `record` writes it down.
"""
