# The Hub. `make run` serves one, `make test` is what CI runs, `make check` is the quick look before a commit.

GO          ?= go
BIN         := $(CURDIR)/bin
TOOLS       := $(CURDIR)/.tools
STATICCHECK := $(TOOLS)/staticcheck
# Pinned, so that a new release of the linter does not turn a tree red that nobody touched.
STATICCHECK_VERSION ?= v0.8.2
# Real S3 servers for the acceptance suite.
VERSITYGW_VERSION ?= v1.8.0
GOFAKES3_VERSION  ?= v1.2.0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo local)
LDFLAGS := -s -w -X main.version=$(VERSION)

# What `make run` hands to the hub: make run ARGS="--listen 127.0.0.1:9000"
ARGS     ?=
FUZZTIME ?= 30s
ROUNDS   ?= 50
# make chaos MINUTES=10 SEED=0 FAULTS=kill-one,halves: how long, of which seed (0: of the time), which kinds of faults (none named: all).
MINUTES  ?= 10
SEED     ?= 0
FAULTS   ?=
SEEDS    ?= 2000

.PHONY: run build check test bench fuzz sim chaos chaos-long chaos-short chaos-single image clean needs lint floors unit coordination search e2e

run: build
	exec $(BIN)/hub serve $(ARGS)

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/hub ./cmd/hub

# The quick look: form, floors, sizes, and the short tests with the race detector.
check: lint floors
	$(GO) test -race -short -p 2 -timeout 30m ./...

# Everything CI wants to know, in less than 20 minutes on 2 cores.
test: needs lint floors
	$(MAKE) -j2 --output-sync=target unit e2e
	$(MAKE) -j2 --output-sync=target search coordination
	$(MAKE) chaos-short

# Installs what the tests use and this machine lacks.
needs: $(TOOLS)/versitygw $(TOOLS)/gofakes3
	scripts/needs gcc python3 unzip zookeeper curl node npm mkfs.ext4 strace iptables ip haproxy

$(TOOLS)/versitygw:
	GOBIN=$(TOOLS) $(GO) install github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)

$(TOOLS)/gofakes3:
	GOBIN=$(TOOLS) $(GO) install github.com/johannesboyne/gofakes3/cmd/gofakes3@$(GOFAKES3_VERSION)

lint: $(STATICCHECK)
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w these files:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...

$(STATICCHECK):
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)

floors:
	$(GO) test -count=1 -run '^Test(Floors|FloorsTable|Drivers|Sizes|House)$$' ./e2e

unit:
	$(GO) test -race -short -p 4 -timeout 18m $$($(GO) list ./... | grep -v -e '/e2e$$' -e '/spoke$$' -e '/spoke/roster$$' -e '/hub/coord/zk$$')
	$(GO) test -race -timeout 18m -skip '^Test(AllDie|Rule.*)$$' ./spoke -cluster.from=1 -cluster.seeds=10 -cluster.steps=25
	$(GO) test -p 2 -timeout 18m ./channel/longterm ./spoke/log ./spoke/roster
	$(GO) test -tags clockcontrol -run '^TestMoveWall$$' ./cmd/hub

# Against a real ZooKeeper: sessions end on a machine that has no time for them, so not beside everything else.
coordination:
	$(GO) test -race -timeout 18m ./hub/coord/zk

# Whole clusters in virtual time against the faults of a seed (unit plays a few of them with the race detector), and rules that are broken to see whether that is noticed.
search:
	$(GO) test -count=1 -timeout 15m -v -run '^Test(AllDie|Rule.*|ClusterAtRandom|ClusterMutants)$$' ./spoke -cluster.from=11 -cluster.seeds=190 -cluster.steps=25 -cluster.mutants=200

# Whole hubs: scripts, real data, crashes, simulation. Most of them wait for others most of the time. What takes minutes by its nature is in chaos-long. They are processes of their own, the race detector would see only the test.
e2e:
	$(GO) test -count=1 -timeout 18m -parallel 4 -skip '^Test(Chaos|ClusterS3Away)$$' ./e2e -fleet.seeds=16

bench:
	$(GO) run ./bench $(BENCH)

# Every fuzz target for FUZZTIME each.
fuzz:
	scripts/fuzz $(FUZZTIME)

sim:
	$(GO) test -count=1 -timeout 180m -run '^TestSim' ./e2e -sim.seeds=$(SEEDS) -fleet.seeds=$(SEEDS)
	$(GO) test -count=1 -timeout 180m -run '^Test(Rule.*|ClusterAtRandom|ClusterMutants)$$' -v ./spoke -cluster.seeds=$(SEEDS) -cluster.mutants=400

# Two minutes of chaos in all.
chaos-short:
	$(GO) test -count=1 -timeout 15m -run '^TestChaos$$' -v ./e2e -chaos.minutes=1.8 -chaos.pairs=0

# Three hubs, three ZooKeeper servers and S3 in network namespaces of their own, under all faults. A run that fails names the folder of its histories.
chaos: needs
	$(GO) test -count=1 -timeout $$(($(MINUTES) * 4 + 30))m -run '^TestChaos$$' -v ./e2e -seed=$(SEED) -chaos.minutes=$(MINUTES) -chaos.faults=$(FAULTS)

# Three hubs without namespaces: power cuts of all of them, S3 and ZooKeeper away, restarts in turn. About half an hour.
chaos-long: needs
	$(GO) test -count=1 -timeout 120m -parallel 1 -run '^TestCluster(PowerCut|S3Away|ZooKeeperAway|RollingRate|Clock|DiskFull|BadSyncs)$$' -v ./e2e \
	  -cluster.cuts=100 -cluster.s3away=200s -cluster.zkaway=10m -cluster.rolls=20 -cluster.rollrate=300

# One hub, killed and injured, its webhooks and replicas.
chaos-single:
	$(GO) test -count=1 -timeout 60m -run '^Test(Crash|Injuries|WebhookChaos|Replicate)' -v ./e2e -rounds=$(ROUNDS) -replicate.items=200000 -replicate.cuts=50 -replicate.seeds=100 -webhook.items=50000 -webhook.kills=30

# The container image timehub/hub:local: one static binary on nothing. Built by docker, or by buildah where there is no daemon.
image:
	mkdir -p dist/data
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/hub ./cmd/hub
	cp /etc/ssl/certs/ca-certificates.crt dist/
	if docker info >/dev/null 2>&1; then docker build -f docker/Dockerfile -t timehub/hub:local .; \
	else scripts/needs buildah && buildah bud --isolation chroot -f docker/Dockerfile -t timehub/hub:local .; fi

clean:
	rm -rf $(BIN) $(TOOLS) dist bench/out
	$(GO) clean -testcache
