# make tour   install everything, run every notebook, make a site of them (NB=01 one, FULL=1 long)
# make lab    install everything, open the notebooks in JupyterLab
# make test   install everything, run all tests
# make demo   install everything, serve pages for lectures, and a place for your own files
PYTHON := .venv/bin/python
DEFECTKIT := $(PYTHON) -m defectkit.cli

.PHONY: tour lab test setup notebooks solutions figures demo lint clean

tour: setup
	@$(DEFECTKIT) tour $(NB) $(if $(FULL),--full)

lab: setup
	@PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON) -m jupyter lab notebooks/00_start_here.ipynb

# Two processes of one thread each: with more they would wait for each other's cores.
test: setup
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

setup:
	@command -v python3 >/dev/null || { \
	  echo "Set-up stopped: there is no python3; install Python 3.11, 3.12 or 3.13." >&2; exit 1; }
	@python3 tools/setup.py

notebooks: setup
	@$(DEFECTKIT) notebooks

solutions: setup
	@$(DEFECTKIT) solutions

figures: setup
	@$(DEFECTKIT) figures

demo: setup
	@$(DEFECTKIT) present

lint: setup
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check

# Removes what runs leave behind; the environment in .venv stays.
clean:
	rm -rf build .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
