# keywright. `make demo` shows it working, `make test` proves it.

# Versions that `make test` covers: 15 is Debian's, 17 is that of Debian 13 and runs there, 18 comes from PyPI.
PG ?= 15 17 18
# Those that run on this machine.
HERE = $(filter-out 17,$(PG))
PG_CONFIG ?= pg_config

help: ## This list
	@sed -n 's/^\([a-z-]*\): ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## See it work: installs what is missing, builds, starts a private cluster, walks through the main job
	@scripts/demo $(firstword $(HERE))

test: ## Everything, on every version in PG
	@scripts/test $(PG)

docs: ## The documentation as a site in target/site
	@scripts/docs $(firstword $(HERE))

bench: ## Speed, each figure against a baseline measured in the same run
	@scripts/bench $(HERE)

instructions: ## Instructions of one verification in the server, by valgrind
	@scripts/instructions $(HERE)

all: ## Build in release for the Postgres of PG_CONFIG
	@scripts/compile $(PG_CONFIG) >/dev/null

install: ## Build in release and install into the Postgres of PG_CONFIG, below DESTDIR
	@scripts/install $(PG_CONFIG)

package: ## A Debian package for the Postgres of PG_CONFIG and an archive for PGXN in target/dist, the same bytes in whatever folder they are built
	@scripts/package $(PG_CONFIG)
	@scripts/pgxn

installcheck: ## Regression tests of an installed keywright, on the running server of PGHOST and PGPORT
	@scripts/installcheck $(PG_CONFIG)

uninstall: ## Remove it from the Postgres of PG_CONFIG
	@scripts/uninstall $(PG_CONFIG)

release-check: ## What must hold before a release, and what of it is missing
	@scripts/release-check

clean: ## Remove what was built
	@scripts/clean

.PHONY: demo test docs bench instructions all install package installcheck uninstall release-check clean help
