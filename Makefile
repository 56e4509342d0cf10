# What people type. Everything is also plain cargo; `make test` and `make ci` install what is missing.

CARGO ?= cargo
ARGS ?=

.DEFAULT_GOAL := build
.PHONY: build test run run-sms run-spearlet samples example ci clean help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

build: ## the program, as released: target/release/spear
	$(CARGO) build --release

test: samples ## every test, with what they need
	.ci/setup
	.ci/test

run: ## registry and agent in one process
	$(CARGO) run --release -- serve --role all $(ARGS)

run-sms: ## the registry
	$(CARGO) run --release -- serve --role sms $(ARGS)

run-spearlet: ## an agent; ARGS='--sms-addr 127.0.0.1:50051' connects it
	$(CARGO) run --release -- serve --role spearlet $(ARGS)

samples: ## guests from C: samples/build/*.wasm
	.ci/setup guests
	$(MAKE) -C samples

example: ## config.example.toml anew
	$(CARGO) run --quiet -- config example > config.example.toml.new
	mv config.example.toml.new config.example.toml

ci: ## what runs before a change lands
	.ci/run

clean: ## everything that was built
	$(CARGO) clean
	$(MAKE) -C samples clean
