package metrics

// Type is what sort of instrument a metric is.
type Type uint8

// The instruments.
const (
	CounterType Type = iota
	GaugeType
	TimingType
)

func (t Type) String() string { return [...]string{"counter", "gauge", "timing"}[t] }

// Def declares one metric.
type Def struct {
	Name string // without the prefix of the system it goes to
	Type Type
	Help string
	Tags []string
	// Statsd: the original has it, under this name (spec 06 §6), so it is sent as DogStatsD. The others are shown at /metrics only.
	Statsd bool
	// AsCount: a level that the original sends as a count; people's dashboards expect it so.
	AsCount bool
}

// The names. Prometheus shows channel.items as hub_channel_items_total, a timing with the suffix _seconds; DogStatsD as hub.channel.items.
const (
	Channel          = "channel"
	ChannelBytes     = "channel.bytes"
	ChannelItems     = "channel.items"
	RequestAPI       = "request.api.channel"
	RequestAPIOther  = "request.api.nonchannel"
	RequestInternal  = "request.internal.nonchannel"
	RequestInternalC = "request.internal.channel"
	Errors           = "errors"

	S3Put             = "s3.put"
	S3PutBytes        = "s3.put.bytes"
	S3Get             = "s3.get"
	BucketErrors      = "bucket.errors"
	VerifierMissing   = "s3.verifier.missing"
	VerifierFailed    = "s3.verifier.failed"
	VerifierPartial   = "s3.verifier.partial_update"
	ArchiveLag        = "archive.lag.seconds"
	ArchiveItems      = "archive.items"
	ArchiveBytes      = "archive.bytes"
	ArchiveErrors     = "archive.errors"
	ArchivePending    = "archive.pending.channels"
	RetentionDeleted  = "retention.deleted"
	SpokeTTL          = "spoke.write.ttl"
	SpokeOldest       = "spoke.write.age.oldest"
	SpokeEvicted      = "spoke.write.evicted"
	SpokeSweepRuntime = "spoke.write.ttl.enforcer.runtime"

	LogSync          = "spoke.log.sync"
	LogGroups        = "spoke.log.groups"
	LogRecords       = "spoke.log.records"
	LogBytes         = "spoke.log.bytes"
	LogSegments      = "spoke.log.segments"
	LogSize          = "spoke.log.size.bytes"
	LogActiveRecords = "spoke.log.active.records"
	LogDamaged       = "spoke.log.damaged"
	LogFailures      = "spoke.log.failures"
	LogRefused       = "spoke.log.refused"
	LogCarried       = "spoke.log.carried"
	HorizonAge       = "spoke.horizon.age.seconds"
	LateItems        = "spoke.late.items"
	RepairRecords    = "spoke.repair.records"
	RepairBytes      = "spoke.repair.bytes"
	RepairLost       = "spoke.repair.lost"
	ListBytes        = "spoke.list.bytes"
	DiskFree         = "disk.free.bytes"

	StreamOpen     = "stream.open"
	StreamMessages = "stream.messages"
	StreamSlow     = "stream.slow"

	ReplicationItems  = "replication.items"
	ReplicationBytes  = "replication.bytes"
	ReplicationErrors = "replication.errors"
	ReplicationLag    = "replication.lag.seconds"

	Webhook               = "webhook"
	WebhookDelta          = "webhook.delta"
	WebhookErrors         = "webhook.errors"
	WebhookLeaderStart    = "webhook.leader.start"
	WebhookLeaderComplete = "webhook.leader.complete"

	OpenFiles        = "openFiles"
	StartupStart     = "lifecycle.startup.start"
	StartupComplete  = "lifecycle.startup.complete"
	ShutdownStart    = "lifecycle.shutdown.start"
	ShutdownComplete = "lifecycle.shutdown.complete"
)

// Table declares every metric of the hub, each with its sentence. A room that wants another one adds its line here.
func Table() []Def {
	insert := []string{"type", "channel"}
	request := []string{"method", "call", "channel"}
	internal := []string{"method", "call"}
	return []Def{
		{Name: Channel, Type: TimingType, Tags: insert, Statsd: true, Help: "Time from the first byte of a successful insert's body to its answer, by SINGLE, BULK or HISTORICAL."},
		{Name: ChannelBytes, Type: CounterType, Tags: insert, Statsd: true, Help: "Uncompressed bytes of the items inserted."},
		{Name: ChannelItems, Type: CounterType, Tags: insert, Statsd: true, Help: "Items inserted."},
		{Name: RequestAPI, Type: TimingType, Tags: request, Statsd: true, Help: "Requests that name a channel or a tag, by method and path template."},
		{Name: RequestAPIOther, Type: TimingType, Tags: request, Statsd: true, Help: "Other requests to the public interface."},
		{Name: RequestInternalC, Type: TimingType, Tags: internal, Statsd: true, Help: "Requests below /internal/channel."},
		{Name: RequestInternal, Type: TimingType, Tags: internal, Statsd: true, Help: "Other requests below /internal."},
		{Name: Errors, Type: CounterType, Tags: []string{"errorCode", "call", "channel"}, Statsd: true, Help: "Answers with a status above 400 other than 404."},

		{Name: S3Put, Type: TimingType, Tags: insert, Statsd: true, Help: "Writes to long-term storage, by single, batch or large."},
		{Name: S3PutBytes, Type: CounterType, Tags: insert, Statsd: true, Help: "Bytes written to long-term storage."},
		{Name: S3Get, Type: TimingType, Tags: insert, Statsd: true, Help: "Reads from long-term storage, by single or batch."},
		{Name: BucketErrors, Type: CounterType, Tags: []string{"method"}, Help: "Calls to the long-term bucket that failed for a reason of the bucket's."},
		{Name: VerifierMissing, Type: CounterType, Statsd: true, Help: "Items that the verifier found in Spoke and not in long-term storage."},
		{Name: VerifierFailed, Type: CounterType, Statsd: true, Help: "Runs of the verifier that failed for a channel."},
		{Name: VerifierPartial, Type: CounterType, Statsd: true, Help: "Runs of the verifier that ended before they had seen the whole channel."},
		{Name: ArchiveLag, Type: GaugeType, Help: "Age of the oldest acknowledged item that is not yet confirmed in long-term storage; 0 if there is none."},
		{Name: ArchiveItems, Type: CounterType, Help: "Items confirmed in long-term storage by the archiver."},
		{Name: ArchiveBytes, Type: CounterType, Help: "Bytes of objects that the archiver wrote."},
		{Name: ArchiveErrors, Type: CounterType, Help: "Attempts of the archiver that failed; it tries again."},
		{Name: ArchivePending, Type: GaugeType, Help: "Channels with items that are not yet in long-term storage."},
		{Name: RetentionDeleted, Type: CounterType, Help: "Objects that retention and the clean-up of deleted channels removed."},
		{Name: SpokeTTL, Type: GaugeType, Statsd: true, Help: "Minutes that items stay in Spoke at least (spoke.write.ttlMinutes)."},
		{Name: SpokeOldest, Type: GaugeType, Statsd: true, Help: "Age of the oldest segment of Spoke's log, in milliseconds."},
		{Name: SpokeEvicted, Type: GaugeType, Statsd: true, Help: "Records that the last sweep of Spoke's log removed."},
		{Name: SpokeSweepRuntime, Type: GaugeType, Statsd: true, Help: "How long the last sweep of Spoke's log took, in milliseconds."},

		{Name: LogSync, Type: TimingType, Help: "Duration of one fdatasync of Spoke's log."},
		{Name: LogGroups, Type: CounterType, Help: "Groups committed to Spoke's log."},
		{Name: LogRecords, Type: CounterType, Help: "Records committed to Spoke's log."},
		{Name: LogBytes, Type: CounterType, Help: "Bytes written to Spoke's log."},
		{Name: LogSegments, Type: GaugeType, Help: "Segments of Spoke's log."},
		{Name: LogSize, Type: GaugeType, Help: "Bytes of all segments of Spoke's log."},
		{Name: LogActiveRecords, Type: GaugeType, Help: "Records of the active segment."},
		{Name: LogDamaged, Type: CounterType, Help: "Damaged records and groups found in Spoke's log."},
		{Name: LogFailures, Type: CounterType, Help: "Writes and syncs of Spoke's log that failed."},
		{Name: LogRefused, Type: CounterType, Tags: []string{"reason"}, Help: "Writes that Spoke refused: full disk, too much in flight, failing disk."},
		{Name: LogCarried, Type: CounterType, Help: "Unconfirmed records that a sweep copied to the active segment."},
		{Name: HorizonAge, Type: GaugeType, Help: "How far the stable horizon is behind the clock."},
		{Name: LateItems, Type: CounterType, Help: "Items that are late because a closing was forced, as this node knows them, those known at its start included."},
		{Name: RepairRecords, Type: CounterType, Help: "Records copied from other nodes because this one lagged behind."},
		{Name: RepairBytes, Type: CounterType, Help: "Bytes of these."},
		{Name: RepairLost, Type: CounterType, Help: "Items that this disk had lost without noticing it, found by comparing minutes with other nodes, and copied from them."},
		{Name: ListBytes, Type: GaugeType, Help: "Bytes of the list of members on record; closed incarnations leave it when all members are there and what they held is archived."},
		{Name: DiskFree, Type: GaugeType, Help: "Free bytes of the file system of the data directory."},

		{Name: StreamOpen, Type: GaugeType, Tags: []string{"kind"}, Help: "Open connections of clients that follow a channel or a tag, by ws or events."},
		{Name: StreamMessages, Type: CounterType, Tags: []string{"kind"}, Help: "Items sent to them."},
		{Name: StreamSlow, Type: CounterType, Tags: []string{"kind"}, Help: "Clients that did not keep up and were closed, cut off, or told of a gap."},

		{Name: ReplicationItems, Type: CounterType, Tags: []string{"channel"}, Help: "Items taken from the source of a replicated channel."},
		{Name: ReplicationBytes, Type: CounterType, Tags: []string{"channel"}, Help: "Bytes of these, large items left out."},
		{Name: ReplicationErrors, Type: CounterType, Tags: []string{"channel"}, Help: "Rounds of replication that failed; they come again."},
		{Name: ReplicationLag, Type: GaugeType, Tags: []string{"channel"}, Help: "Age of the instant up to which the source of a replicated channel was read; 0 while everything is here."},

		{Name: Webhook, Type: TimingType, Tags: []string{"name"}, Statsd: true, Help: "Time from the first call for an item or period to its success, with all repetitions."},
		{Name: WebhookDelta, Type: TimingType, Tags: []string{"name"}, Statsd: true, Help: "Age of items and periods when they are called for the first time."},
		{Name: WebhookErrors, Type: CounterType, Tags: []string{"name", "status"}, Statsd: true, Help: "Failed calls, by status; null: there was no answer, 500: broken off."},
		{Name: WebhookLeaderStart, Type: CounterType, Tags: []string{"name"}, Statsd: true, Help: "How often this node has begun to lead a webhook."},
		{Name: WebhookLeaderComplete, Type: CounterType, Tags: []string{"name"}, Statsd: true, Help: "How often this node has ceased to lead a webhook."},

		{Name: OpenFiles, Type: GaugeType, Statsd: true, AsCount: true, Help: "Open file descriptors of this process; -1 if unknown."},
		{Name: StartupStart, Type: CounterType, Tags: []string{"startup"}, Statsd: true, Help: "Starts of this node."},
		{Name: StartupComplete, Type: CounterType, Tags: []string{"startup"}, Statsd: true, Help: "Starts that reached the healthy state."},
		{Name: ShutdownStart, Type: CounterType, Tags: []string{"shutdown"}, Statsd: true, Help: "Shutdowns begun."},
		{Name: ShutdownComplete, Type: CounterType, Tags: []string{"shutdown"}, Statsd: true, Help: "Shutdowns that ended in order."},
	}
}

// Lookup finds the declaration of a name. A name that Table does not know is declared by what the caller says.
func Lookup(name string, t Type, help string, tags []string) Def {
	for _, d := range Table() {
		if d.Name == name {
			if help == "" {
				help = d.Help
			}
			return Def{Name: name, Type: t, Help: help, Tags: tags, Statsd: d.Statsd && d.Type == t, AsCount: d.AsCount}
		}
	}
	return Def{Name: name, Type: t, Help: help, Tags: tags}
}
