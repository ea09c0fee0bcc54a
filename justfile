# Each recipe is one line that also works without just.

# list the recipes
_list:
    @just --list

# run all tests
test *args:
    pytest {{args}}

# what CI checks besides the tests: lint, format, types, import layers
lint:
    ruff check . && ruff format --check . && mypy && mypy --platform win32 && lint-imports

# repair what can be repaired
fix:
    ruff check --fix . && ruff format .

# make again what the documents show of the program
docs:
    python docs/refresh.py

# make the site of all pages (pip install ".[docs]"); open build/site/index.html
site:
    sphinx-build -q -n -W --keep-going -c docs . build/site && python .ci/check_site.py build/site

# measure all claims, in about twenty minutes, and write benchmarks/RESULTS.md
bench *args:
    python benchmarks/run_all.py {{args}}

# compare what is sent of 4,000 synthesised pictures with second decoders, in three minutes
sweep *args:
    python benchmarks/picture_sweep.py {{args}}

# let everything go wrong for eight minutes
soak *args:
    python benchmarks/soak.py {{args}}

# send ten thousand odd replies to the backends, and check ten thousand odd answers against schemas
fuzz:
    python benchmarks/fuzz_replies.py && python benchmarks/fuzz_answers.py
