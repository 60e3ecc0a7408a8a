"""The benchmark: our product and its peers, side by side, in one run on one machine.

`make bench` runs every part; `python -m bench build gate --rows 100k` runs some. What it
measures, with the targets, is in `bench.targets`; the figures are kept in
`docs/measured/bench.json`, of which `make docs` makes `docs/benchmarks.md`.
"""
