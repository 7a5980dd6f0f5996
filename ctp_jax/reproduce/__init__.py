"""Tables and figures of the paper, and of one's own, from one command.

`python -m ctp_jax.reproduce NAME --root=DIR`. An experiment is a file of data,
`configs/experiments/NAME.py` or one's own: rows, columns, and the paper's numbers. Read
`experiments` first.

experiments  reads the files: what is pretrained, what it is transferred to
specs        configs as experiments name them, and their small forms
runs         the runs that a table needs, each once; their order and names
plan         what is missing before anything starts, and how long it takes
work         makes the runs, one after the other
tables       what the runs gave, beside the paper's numbers
pictures     figures that are pictures
overview     the table of docs/experiments.md
"""
