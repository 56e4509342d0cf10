# What people type. Everything is also plain cargo; `make test` and `make ci` install what is missing.

CARGO ?= cargo
ARGS ?=

# Installing: `make && sudo make install`; packagers add DESTDIR.
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINARY ?= target/release/spear
# What builds images: docker takes the same words.
ENGINE ?= $(if $(shell command -v podman),podman,docker)

.DEFAULT_GOAL := build
.PHONY: build test run run-sms run-spearlet samples example install uninstall deb image e2e bench ci clean help

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

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

bin := $(DESTDIR)$(PREFIX)/bin
share := $(DESTDIR)$(PREFIX)/share
units := $(DESTDIR)$(PREFIX)/lib/systemd/system
etc := $(DESTDIR)$(SYSCONFDIR)/spear

install: ## BINARY to DESTDIR and PREFIX, with links, units, manual, completions; /etc/spear is not overwritten
	@[ -x $(BINARY) ] || { echo '$(BINARY) is missing: run make first' >&2; exit 1; }
	install -d $(bin) $(units) $(etc) $(share)/doc/spear $(share)/man/man1 $(share)/bash-completion/completions \
	    $(share)/zsh/site-functions $(share)/fish/vendor_completions.d
	install -m 755 $(BINARY) $(bin)/spear
	ln -sf spear $(bin)/sms
	ln -sf spear $(bin)/spearlet
	for unit in systemd/*.service; do \
	    sed 's#/usr/bin/spear#$(PREFIX)/bin/spear#; s#/usr/share/#$(PREFIX)/share/#; s#/etc/#$(SYSCONFDIR)/#g' \
	        $$unit > $(units)/$${unit##*/} && \
	    chmod 644 $(units)/$${unit##*/} || exit 1; done
	for file in systemd/etc/*.toml; do \
	    [ -e $(etc)/$${file##*/} ] || install -m 644 $$file $(etc) || exit 1; done
	install -m 644 README.md README.zh.md LICENSE config.example.toml docs/operations.md docs/compatibility.md \
	    $(share)/doc/spear
	$(bin)/spear man $(share)/man/man1
	$(bin)/spear completion bash > $(share)/bash-completion/completions/spear
	$(bin)/spear completion zsh > $(share)/zsh/site-functions/_spear
	$(bin)/spear completion fish > $(share)/fish/vendor_completions.d/spear.fish
	chmod 644 $(share)/man/man1/spear*.1 $(share)/bash-completion/completions/spear \
	    $(share)/zsh/site-functions/_spear $(share)/fish/vendor_completions.d/spear.fish

uninstall: ## what install put there; configuration and state stay
	rm -f $(bin)/spear $(bin)/sms $(bin)/spearlet $(patsubst systemd/%,$(units)/%,$(wildcard systemd/*.service))
	rm -f $(share)/man/man1/spear.1 $(share)/man/man1/spear-*.1 $(share)/bash-completion/completions/spear \
	    $(share)/zsh/site-functions/_spear $(share)/fish/vendor_completions.d/spear.fish
	rm -rf $(share)/doc/spear

deb: ## a package for Debian and Ubuntu of BINARY: target/debian/*.deb
	[ -x target/tools/bin/cargo-deb ] || $(CARGO) install cargo-deb --version 3.8.0 --locked --root target/tools
	rm -rf target/deb
	$(MAKE) install DESTDIR=target/deb PREFIX=/usr BINARY=$(BINARY)
	PATH="$$PWD/target/tools/bin:$$PATH" $(CARGO) deb --package spear --no-build --no-strip

image: ## an image for containers: spear
	$(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) \
	    --build-arg REVISION=$(shell git rev-parse --short HEAD 2>/dev/null) -t spear .

e2e: build ## the image as registry and agent in two containers, and what they must survive
	.ci/setup containers
	.ci/containers $(BINARY)

bench: build ## measure registry and start anew, an hour on a quiet machine, and write docs/performance.md
	$(CARGO) build --release --manifest-path bench/Cargo.toml -p bench-registry
	for what in start nodes pages events slow heartbeats; do \
	    bench/target/release/bench-registry $$what $(BINARY) || exit 1; done
	bench/target/release/bench-registry draw docs

ci: ## what runs before a change lands
	.ci/run

clean: ## everything that was built
	$(CARGO) clean
	$(MAKE) -C samples clean
