# Two commands on a fresh machine: `make demo` shows what pgkeep does, `make test` proves it.
# Both install what is missing (PostgreSQL's programs, stock tools) and leave nothing running.
SHELL := /bin/bash
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help demo test lint check test-matrix test-stores test-system deb soak bench bench-local bench-s3 bench-idle bench-guard

help:
	@sed -n 's/^## //p' Makefile

## make demo         a shop, a snapshot, a disaster, a verified restore; half a minute once built
demo:
	@tests/setup demo
	@cargo build
	@target/debug/pgkeep demo

## make test         everything, against PostgreSQL 15 and 17
test:
	@tests/setup test
	cargo fmt --check
	tests/run cargo test

# The same here and in the continuous integration. `nodes` is a target that `--all-targets` leaves out. The last one is the
# program without S3 and without HTTP.
lint:
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings
	cargo clippy --test nodes --quiet -- -D warnings
	cargo clippy --no-default-features --lib --bins --quiet -- -D warnings

## make check        the inner loop: format, lints, floors, unit tests; no server needed
## (the long walk through interleavings of writers and prunes is left to `make test`)
check: lint
	cargo test --quiet --test floors
	cargo test --quiet --lib -- --skip interleavings

## make test-matrix  the stories against PostgreSQL 16 and 18, and from 15 to 18
test-matrix:
	@tests/setup test
	@tests/setup 16 18
	MAJORS="16 18" tests/run cargo test --test it
	MAJORS="15 18" tests/run cargo test --test it

## make test-stores  the S3 contract and a story against Garage (one node and three) and Ceph RGW, and stories of three
## nodes that die; builds Garage and unpacks Ceph the first time (about 20 minutes of two cores, 2 GB)
STORES ?= garage garage3 ceph
test-stores:
	@tests/setup test
	@for store in $(STORES); do \
	    tests/stores/run $$store cargo test --test s3 the_s3_store_keeps_the_contract && \
	    tests/stores/run $$store tests/run cargo test --test it s3::a_lost_database || exit 1; \
	    [ $$store = garage ] || tests/stores/run $$store tests/run cargo test --test nodes || exit 1; \
	done

## make deb          the Debian package (target/packaging); PROFILE=dev is quicker to build
PROFILE ?= release
deb:
	@tests/setup deb
	@packaging/build $(PROFILE)

## make test-system  the package on a booted systemd, the tree of docs/docker/Dockerfile, and the alerts by Prometheus'
## own promtool; as root, a few minutes, half a gigabyte of Debian packages the first time
test-system:
	@tests/setup system
	@tests/system/alerts
	@tests/system/run
	@tests/system/image

## make soak         10,000 histories of writers, prunes, pauses and crashes (SIM_FROM=N begins elsewhere); a year of
## 1,000 clusters by the clock of the test, within a minute; a prune over 100,000 manifests, planned within five seconds
soak:
	SIM_SEEDS=$${SIM_SEEDS:-10000} cargo test --lib no_interleaving -- --nocapture
	YEAR_CLUSTERS=$${YEAR_CLUSTERS:-1000} cargo test --release --lib virtual_year -- --nocapture
	PLAN_SECONDS=5 cargo test --release --lib hundred_thousand_manifests -- --nocapture

## make bench        speed and memory beside the stock tools (docs/performance.md), about an hour: bench-local in a
## directory, then bench-s3 on an S3 server of this machine, near by and 50 ms away, then bench-idle, a daemon at rest,
## and bench-guard, what the guard adds to a migration
bench:
	@status=0; for part in run s3 idle guard; do tests/bench/$$part || status=1; done; exit $$status

bench-local:
	@tests/bench/run

bench-s3:
	@tests/bench/s3

bench-idle:
	@tests/bench/idle

bench-guard:
	@tests/bench/guard
