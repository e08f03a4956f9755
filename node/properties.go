package node

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Property declares one property: the table Properties is all that there is to configure.
type Property struct {
	Name     string
	Default  string
	Unit     string   // of a number; "" for none
	Min, Max int64    // of a number; both 0: not a number
	Choices  []string // the only values, or, with a number, what else it can be
	Kind     string   // what other values are: "boolean", "date", "url", "ip", "dir"; "" for any text
	Meaning  string
	NoEffect string // why setting it changes nothing here; "" if it does
	Refused  string // a value that this version must not pretend to honour
	Why      string // and what it says then
	Fallback string // the property whose value is taken when this one is not set
}

// Effect says in a word whether setting the property changes anything.
func (p *Property) Effect() string {
	if p.NoEffect != "" {
		return "no effect: " + p.NoEffect
	}
	return ""
}

// Range is the rule of the property's values in words, for messages and documents.
func (p *Property) Range() string {
	switch {
	case p.number():
		s := fmt.Sprintf("%d to %d", p.Min, p.Max)
		if p.Max == math.MaxInt32 {
			s = fmt.Sprintf("%d or more", p.Min)
		}
		if p.Unit != "" {
			s += " " + p.Unit
		}
		return strings.Join(append(slices.Clone(p.Choices), s), " or ")
	case len(p.Choices) > 0:
		return strings.Join(p.Choices, ", ")
	case p.Kind == "boolean":
		return "true or false"
	case p.Kind == "date":
		return "a date yyyy/MM/dd"
	case p.Kind == "url":
		return "an absolute http or https URL, or nothing"
	case p.Kind == "dir":
		return "a directory"
	case p.Kind == "ip":
		return "an IP address or a host name"
	}
	return "text"
}

func (p *Property) number() bool { return p.Min != 0 || p.Max != 0 }

// check says what is wrong with a value, or nil.
func (p *Property) check(v string) error {
	ok := true
	switch {
	case slices.Contains(p.Choices, v):
	case p.number():
		n, err := strconv.ParseInt(v, 10, 64)
		ok = err == nil && n >= p.Min && n <= p.Max
	case len(p.Choices) > 0:
		ok = false
	case p.Kind == "boolean":
		ok = strings.EqualFold(v, "true") || strings.EqualFold(v, "false")
	case p.Kind == "date":
		_, err := time.Parse("2006/01/02", v)
		ok = err == nil
	case p.Kind == "url":
		u, err := url.Parse(v)
		ok = v == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	case p.Kind == "dir":
		ok = v != "" && !strings.ContainsAny(v, "\x00\r\n")
	case p.Kind == "ip":
		ok = v != "" && (net.ParseIP(v) != nil || !strings.ContainsAny(v, ":/ []"))
	default:
		ok = !strings.ContainsAny(v, "\x00\r\n")
	}
	if !ok {
		return fmt.Errorf("%s is %q: it must be %s", p.Name, shown(p.Name, v), p.Range())
	}
	if p.Refused != "" && strings.EqualFold(v, p.Refused) {
		return fmt.Errorf("%s=%s: %s", p.Name, v, p.Why)
	}
	return nil
}

// The shapes of lines in the table.

func text(name, def, meaning string) Property {
	return Property{Name: name, Default: def, Meaning: meaning}
}

func boolean(name string, def bool, meaning string) Property {
	return Property{Name: name, Default: strconv.FormatBool(def), Kind: "boolean", Meaning: meaning}
}

func number(name string, def, low, high int64, unit, meaning string) Property {
	return Property{Name: name, Default: strconv.FormatInt(def, 10), Min: low, Max: high, Unit: unit, Meaning: meaning}
}

func choice(name, def, meaning string, choices ...string) Property {
	return Property{Name: name, Default: def, Choices: choices, Meaning: meaning}
}

func (p Property) kind(k string) Property   { p.Kind = k; return p }
func (p Property) none(why string) Property { p.NoEffect = why; return p }
func (p Property) or(choice string) Property {
	p.Choices, p.Default = []string{choice}, choice
	return p
}
func (p Property) fallback(name string) Property { p.Fallback = name; return p }
func (p Property) refuse(value, why string) Property {
	p.Refused, p.Why = value, why
	return p
}

const anyNumber = math.MaxInt32

// Why properties have no effect, once.
const (
	notOurs     = "stands for a part that this hub does not have"
	oneNode     = "this hub is a single node"
	ownStore    = "all data lies in data.dir"
	noSelfCalls = "nothing here calls itself over HTTP"
)

// Properties is the table of everything that can be configured, in the order in which it is shown.
func Properties() []Property {
	return slices.Concat(appProperties(), httpProperties(), storeProperties(), callbackProperties(), clusterProperties(), awsProperties(), metricsProperties())
}

func appProperties() []Property {
	return []Property{
		text("data.dir", "./hub-data", "directory that holds everything this hub keeps; made if it is missing (flag --data)").kind("dir"),
		choice("hub.type", "test", "what the hub is: test or nas is a single node, aws is one of several that make one hub through ZooKeeper; aws too if zookeeper.connection is set, but neither this nor runSingleZookeeperInternally", "test", "nas", "aws"),
		text("app.name", "hub", "part of the names of shared things, such as buckets"),
		text("app.environment", "test", "part of the names of shared things: all of a cluster lies below /{app.name}-{app.environment} in ZooKeeper"),
		text("app.url", "", "load-balanced base URL of this installation, for callbacks").kind("url").none("links and callbacks begin with the address that the client gave"),
		text("app.lib_path", "", "where the original reads its version from").none(notOurs),
		number("app.stable_seconds", 0, 0, 3600, "seconds", "how far stable answers stay behind the clock; auto: an item is stable as soon as its insert was answered; of a cluster 5 unless set, auto: as soon as all nodes have it").or("auto"),
		text("app.birthDay", "2015/01/01", "nothing older is looked for in ordinary channels").kind("date"),
		number("app.maxPayloadSizeMB", 40, 1, 1<<20, "MiB", "a third of the largest multipart body that a bulk insert may have; it lies in memory"),
		number("app.maxItemSizeMB", 1024, 1, 1<<20, "MiB", "largest body of one item, after decoding; above it 413"),
		number("app.large.payload.MB", 40, 1, 1<<20, "MiB", "from this size on an item is large: its body goes to long-term storage first; above 100 it counts as 100"),
		number("app.bulk.maxParts", 999999, 1, 999999, "items", "most items of one bulk insert; above it 413"),
		number("app.directionCountLimit", 10000, 1, 1<<20, "items", "cap of n in next/n, previous/n, latest/n, earliest/n"),
		number("app.clock_guard", 500, 1, 60000, "ms", "largest distance of clocks that is put up with; the clock file stays at most half of it ahead"),
		boolean("app.encrypted", false, "TLS listener").refuse("true", "this version serves plain HTTP only; put a TLS proxy before it"),
		text("app.keyStorePath", "/etc/ssl/", "prefix of the key store file").none("this version serves plain HTTP only"),
		text("app.keyStorePasswordPath", "/etc/ssl/key", "file with the key store password").none("this version serves plain HTTP only"),
		text("app.remoteTimeFile", "/home/hub/remoteTime", "marker of the remote time mode").none(oneNode),
		boolean("app.runNtpMonitor", true, "watch the time daemon").none(notOurs),
		number("app.minPostTimeMillis", 5, 0, anyNumber, "ms", "shortest duration of an insert").none("no insert is ever delayed here"),
		number("app.maxPostTimeMillis", 1000, 0, anyNumber, "ms", "its cap").none("no insert is ever delayed here"),
		number("app.shutdown_wait_seconds", 180, 0, 86400, "seconds", "longest wait for requests in flight at a shutdown"),
		number("app.shutdown_lock_seconds", 0, 0, 86400, "seconds", "a node of a cluster that is to stop waits so long at most until no other one is down in order, from its stop until it is healthy again; 0: it does not wait"),
		number("app.shutdown_delay_seconds", 0, 0, 86400, "seconds", "how long /health says SHUTTING DOWN before the hub stops listening, so that a load balancer notices"),
		boolean("hub.protect.channels", false, "default of a new channel's protect; with true, channels are deleted by local callers only"),
		boolean("hub.read.only", false, "serves reads of what is in long-term storage and in its own data.dir, and changes nothing; switches webhooks, replication and all jobs off"),
		text("cluster.location", "local", "part of a tag").none(notOurs),
		number("query.merge.max.wait.minutes", 2, 1, 1440, "minutes", "longest duration of a query that is not a stream"),
		number("traces.limit", 50, 1, 10000, "steps", "length of a request's trace"),
		text("LastContentPathTracing", "channelToTrace", "substring of marker names to trace").none(notOurs),
		number("jetty.maxThreadPoolSize", 200, 1, anyNumber, "threads", "HTTP workers").none(notOurs),
		boolean("hub.runGC", false, "force garbage collections").none(notOurs),
		number("hub.gcMinutes", 60, 1, anyNumber, "minutes", "how often").none(notOurs),
	}
}

func httpProperties() []Property {
	return []Property{
		number("http.bind_port", 8080, 0, 65535, "", "TCP port to listen at; 0: any free one (flag --listen)"),
		text("http.bind_ip", "127.0.0.1", "address to listen at; 0.0.0.0: all (flag --listen)").kind("ip"),
		number("http.idle_timeout", 30000, 1, anyNumber, "ms", "an idle connection is closed after this"),
		number("http.header.timeout.seconds", 5, 1, 3600, "seconds", "a request's header must have arrived within this"),
		number("http.body.minBytesPerSecond", 1024, 0, 1<<30, "bytes", "a request body that comes in slower than this, on average, is ended with 408; 0: never"),
		number("http.body.grace.seconds", 10, 0, 3600, "seconds", "how long a body may take before that rule applies"),
		number("http.connect.timeout.seconds", 30, 1, anyNumber, "seconds", "internal client").none(noSelfCalls),
		number("http.read.timeout.seconds", 120, 1, anyNumber, "seconds", "internal client").none(noSelfCalls),
		number("http.maxRetries", 8, 0, anyNumber, "", "internal client").none(noSelfCalls),
		number("http.sleep", 1000, 0, anyNumber, "ms", "internal client").none(noSelfCalls),
	}
}

func storeProperties() []Property {
	return []Property{
		choice("spoke.sync", "always", "when an insert is answered: always: it is on disk; interval: written, on disk within 100 ms; never: written", "always", "interval", "never"),
		choice("spoke.quorum", "half", "how many nodes must have an item before it is acknowledged: half of them, rounded up, or more than half; fixed when a cluster begins", "half", "majority"),
		number("spoke.write.timeout", 5, 1, 600, "seconds", "an insert that is not decided within this is answered 503"),
		number("spoke.write.ttlMinutes", 60, 1, 525600, "minutes", "items stay in Spoke at least this long").fallback("spoke.ttlMinutes"),
		number("spoke.ttlMinutes", 60, 1, 525600, "minutes", "older name of spoke.write.ttlMinutes"),
		number("spoke.read.ttlMinutes", 60, 1, 525600, "minutes", "the original's cache of long-term minutes").none(notOurs),
		text("spoke.path", "", "directory").none(ownStore),
		text("spoke.write.path", "", "directory").none(ownStore),
		text("spoke.read.path", "", "directory").none(ownStore),
		boolean("spoke.enforceTTL", true, "remove what is past spoke.write.ttlMinutes and safe in long-term storage; false: keep all"),
		number("spoke.write.factor", 3, 1, anyNumber, "nodes", "how many nodes an item is written to").none("every node gets every item"),
		text("storage.path", "/file", "directory").none(ownStore),
		choice("storage.type", "directory", "where long-term storage lies: directory: in storage.directory; s3: in the bucket s3.bucket_name, which is the default of a cluster that has no storage.directory", "directory", "s3"),
		text("storage.directory", "", "folder of long-term storage, made if it is missing; on a drive that all nodes share, for a cluster; not set: in data.dir"),
		boolean("channel.enforceTTL", true, "remove items that are past their channel's ttlDays or maxItems"),
		boolean("s3.config.management.enabled", true, "the same for object stores; false switches it off too, and leaves the lifecycle rules of the bucket alone"),
		boolean("s3.batch.management.enabled", true, "keep minutes as zips").none("a channel's storage alone decides"),
		boolean("s3Verifier.run", true, "compare Spoke with long-term storage, and repair it"),
		number("s3Verifier.baseTimeoutMinutes", 2, 1, 1440, "minutes", "time that a run of the verifier may take for one channel"),
		number("s3Verifier.offsetMinutes", 15, 1, 1440, "minutes", "what is younger than this is not yet compared"),
		number("s3Verifier.channelThreads", 3, 1, 100, "", "channels compared at once"),
	}
}

func callbackProperties() []Property {
	return []Property{
		number("webhook.callbackTimeoutSeconds.min", 1, 1, anyNumber, "seconds", "smallest callbackTimeoutSeconds that a webhook may have"),
		number("webhook.callbackTimeoutSeconds.max", 1800, 1, anyNumber, "seconds", "largest"),
		number("webhook.callbackTimeoutSeconds.default", 120, 1, anyNumber, "seconds", "its default"),
		number("webhook.connectTimeoutSeconds", 60, 1, anyNumber, "seconds", "how long connecting to a callback address may take"),
		number("webhook.readTimeoutSeconds", 60, 1, anyNumber, "seconds", "fallback of the callback's time").none("each webhook has its callbackTimeoutSeconds"),
		number("webhook.retry.first_millis", 2000, 1, anyNumber, "ms", "pause before the first repetition of a callback"),
		boolean("webhook.tls.verify", true, "check the certificates of callback addresses"),
		number("webhook.shutdown.threads", 100, 1, anyNumber, "", "parallel stops").none("all webhooks stop at once"),
		boolean("webhook.leadership.enabled", true, "this node may run webhooks; false: nor can they be changed under /webhook here"),
		boolean("replication.enabled", true, "may replicate channels"),
	}
}

func clusterProperties() []Property {
	const ownPauses = "the hub chooses its own pauses"
	return []Property{
		text("cluster.address", "", "host:port at which the other nodes reach this one; not set: http.bind_ip, or the name of the host where that is 0.0.0.0, and http.bind_port"),
		text("cluster.trusted", "", "comma-separated IP addresses and networks (10.1.0.0/16) that may use /internal/spoke beside the addresses of the nodes themselves"),
		text("zookeeper.connection", "localhost:2181", "of a cluster: host:port of each ZooKeeper server, comma-separated; /path at the end: everything lies below it"),
		number("zookeeper.session.timeout", 2000, 100, 60000, "ms", "a node that ZooKeeper has not heard of for so long loses its jobs to others; at least two ticks of the server"),
		boolean("zookeeper.tls", false, "speak TLS with ZooKeeper (its secureClientPort); the host names of zookeeper.connection must be those of the servers' certificates"),
		text("zookeeper.tls.authority", "", "file with the certificates, in PEM, of who vouches for the servers; not set: those that the system trusts"),
		text("zookeeper.tls.certificate", "", "file with this node's certificate, in PEM, for servers that want one; zookeeper.tls.key is the file with its key"),
		text("zookeeper.tls.key", "", "file with the key of zookeeper.tls.certificate, in PEM"),
		number("zookeeper.baseSleepTimeMs", 10, 0, anyNumber, "ms", "retry").none(ownPauses),
		number("zookeeper.maxSleepTimeMs", 10000, 0, anyNumber, "ms", "retry").none(ownPauses),
		number("zookeeper.maxRetries", 20, 0, anyNumber, "", "retry").none(ownPauses),
		number("watchManager.threads", 10, 1, anyNumber, "", "watch callbacks").none(notOurs),
		text("runSingleZookeeperInternally", "", "anything, such as singleNode: zookeeper.connection alone does not make a cluster, coordination is in process"),
		number("cluster.force_close_seconds", 0, 0, anyNumber, "seconds", "with an even number of nodes and spoke.quorum=half: half of them close what the dead ones left open after this; items may then come late; 0: only when told"),
		number("cluster.repair_mb_per_second", 200, 0, anyNumber, "MB/s", "a node that lags behind copies at most so much from the others; 0: no limit"),
	}
}

// awsProperties matter with storage.type=s3.
func awsProperties() []Property {
	notOfS3 := []string{
		"aws.disaster.recovery.region", "aws.retry.delay.millis", "aws.retry.unknown.host.delay.millis", "s3.disaster_recovery.bucket_name",
		"s3.disableChunkedEncoding", "s3.writeQueueSize", "s3.writeQueueThreads",
	}
	all := []Property{
		text("aws.credentials", "hub_test_credentials.properties", "file with accessKey and secretKey; not set: the default chain of the AWS SDK (environment, shared files, roles)"),
		choice("aws.protocol", "HTTP", "of the object store: HTTP or HTTPS", "HTTP", "HTTPS"),
		text("aws.signing_region", "us-east-1", "region of the bucket"),
		text("aws.disaster.recovery.region", "us-west-2", "region"),
		number("aws.retry.delay.millis", 100, 0, anyNumber, "ms", "back-off"),
		number("aws.retry.max.delay.millis", 20000, 0, anyNumber, "ms", "longest pause between two attempts at the object store"),
		number("aws.retry.unknown.host.delay.millis", 5000, 0, anyNumber, "ms", "back-off"),
		text("dynamo.endpoint", "dynamodb.us-east-1.amazonaws.com", "DynamoDB"),
		text("dynamo.table_name.channel_configs", "", "DynamoDB"),
		text("dynamo.table_name.webhook_configs", "", "DynamoDB"),
		number("dynamo.maxConnections", 50, 1, anyNumber, "", "DynamoDB"),
		number("dynamo.connectionTimeout", 10000, 0, anyNumber, "ms", "DynamoDB"),
		number("dynamo.socketTimeout", 30000, 0, anyNumber, "ms", "DynamoDB"),
		text("s3.endpoint", "s3-external-1.amazonaws.com", "host of the object store, or its URL"),
		text("s3.environment", "local", "part of the bucket's name"),
		text("s3.bucket_name", "", "the bucket, which must exist; {app.name}-{s3.environment} if not set"),
		text("s3.disaster_recovery.bucket_name", "", "second bucket"),
		boolean("s3.pathStyleAccessEnable", false, "bucket name in the path"),
		boolean("s3.disableChunkedEncoding", false, "uploads in one piece"),
		number("s3.maxConnections", 50, 1, anyNumber, "", "to the object store at once"),
		number("s3.connectionTimeout", 10000, 0, anyNumber, "ms", "to connect to the object store"),
		number("s3.socketTimeout", 30000, 0, anyNumber, "ms", "a connection to the object store on which nothing moves is given up after this"),
		number("s3.maxQueryItems", 1000, 1, anyNumber, "keys", "listing page"),
		number("s3.writeQueueSize", 40000, 1, anyNumber, "", "write queue"),
		number("s3.writeQueueThreads", 20, 1, anyNumber, "", "write queue"),
		number("s3.large.threads", 3, 1, anyNumber, "", "parts of one large body that are uploaded at once"),
		number("s3.maxChunkMB", 40, 1, anyNumber, "MiB", "largest part of a large body; at least 5"),
		number("s3.maxRules", 990, -anyNumber, anyNumber, "rules", "most lifecycle rules that the hub gives the bucket (those of others stay); less than 1 or more than 990: it leaves them alone"),
	}
	for i := range all {
		switch name := all[i].Name; {
		case strings.HasPrefix(name, "dynamo."):
			all[i].NoEffect = "configurations lie in long-term storage"
		case slices.Contains(notOfS3, name):
			all[i].NoEffect = notOurs
		}
	}
	return all
}

func metricsProperties() []Property {
	const noInflux = "the original does not start this reporter either"
	return []Property{
		boolean("metrics.enable", false, "send DogStatsD to both ports below; /metrics is there in any case"),
		number("metrics.seconds", 15, 1, 3600, "seconds", "interval of periodic figures"),
		number("metrics.statsd.port", 8124, 1, 65535, "", "UDP port of the first statsd on this host"),
		number("metrics.grafanastatsd.port", 9125, 1, 65535, "", "UDP port of the second"),
		boolean("metrics.grafana.primary", true, "which of both is called first; both always receive"),
		text("metrics.grafana.request.ignore", "", "blank-separated request metrics that are not sent"),
		text("metrics.grafana.url", "", "mute call at shutdown").none(notOurs),
		text("metrics.grafana.app_key", "", "mute call at shutdown").none(notOurs),
		text("metrics.grafana.api_key", "", "mute call at shutdown").none(notOurs),
		text("metrics.tags.role", "hub", "tag").none(noInflux),
		text("metrics.tags.team", "development", "tag").none(noInflux),
		text("metrics.influxdb.host", "localhost", "InfluxDB").none(noInflux),
		number("metrics.influxdb.port", 8086, 1, 65535, "", "InfluxDB").none(noInflux),
		text("metrics.influxdb.protocol", "http", "InfluxDB").none(noInflux),
		text("metrics.influxdb.database.name", "hub_tick", "InfluxDB").none(noInflux),
		text("metrics.influxdb.database.user", "", "InfluxDB").none(noInflux),
		text("metrics.influxdb.database.password", "", "InfluxDB").none(noInflux),
	}
}
