# whisk is one static binary: `make build` is all of it. `make demo` shows it, `make test` proves it.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.0.0-dev)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
DATE    ?= $(shell git log -1 --format=%cI 2>/dev/null)
PREFIX  ?= $(HOME)/.local
export CGO_ENABLED = 0

# Tools that only development needs, fetched as Go modules.
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GORELEASER  = github.com/goreleaser/goreleaser/v2@v2.16.0

.PHONY: build install demo test test-needs vmtest vmtest-all vet lint bench snapshot check-release reproducible test-arm64 clean

build: ## the binary, ./whisk
	go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)" -o whisk .

install: build ## the binary, where your PATH may find it
	install -D -m 755 whisk $(DESTDIR)$(PREFIX)/bin/whisk

demo: build ## two apps from whisk itself: no image, no network; they stay until ./whisk demo --stop
	@url=$$(./whisk demo -d) && \
	echo "The page at $$url says:" && echo && \
	go run ./internal/glance "$$url" | sed 's/^/    /' && echo && \
	echo "Open it:  $$url" && \
	echo "Stop it:  ./whisk demo --stop"

test: test-needs vet ## everything, as an ordinary user even when root starts it
	go test -timeout 30m ./...

test-needs: ## what the tests run on: Debian packages (installed when root), fixture images (built once)
	testdata/install
	testdata/images/build

vmtest: ## Debian 13 as it is installed, and without sub-ids, in virtual machines side by side; some ten minutes
	go test -tags vm -count=1 -v -timeout 20m -run 'TestVM/trixie/(plain|no-sub-ids)$$' ./testdata/vm

vmtest-all: ## Debian 12 and 13, and every variant of a machine that lacks something; an hour and a half
	go test -tags vm -count=1 -v -timeout 3h ./testdata/vm

vet:
	go vet ./...
	go vet -tags vm ./testdata/vm ./testdata/vm/agent

lint: vet ## golangci-lint where there is one, else the part of it that Go brings or can fetch
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "gofmt -w $$files" >&2; exit 1; fi
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else go run $(STATICCHECK) ./...; fi

bench: build ## whisk beside podman and bubblewrap; as root, since it makes a user and installs them
	bench/run

snapshot: ## what a release would ship, in ./dist
	go run $(GORELEASER) release --snapshot --clean

check-release: ## a snapshot, and what lintian, rpm and readelf say of it
	packaging/check

test-arm64: ## the unit tests that need no kernel feature, under qemu's emulation
	testdata/arm64/run

reproducible: ## that two releases of one commit are the same, to the bit
	packaging/reproducible

clean:
	rm -rf whisk dist completions man packaging/cache
