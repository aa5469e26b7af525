package main

// module is the path that all our import paths begin with.
const module = "heliograph"

// An edge is an import that is not allowed. from and to are folders of the
// module, or import paths of others; both cover what lies below them.
type edge struct {
	from, to string
	// except lists folders below from that may import to after all.
	except []string
	// production says that tests may import to.
	production bool
	reason     string
}

const (
	stages  = "stages meet in schemas and on the log, so that each can be deployed, replayed and replaced alone"
	upwards = "infra is plumbing under every stage; knowing one would tie the others to it"
	binary  = "tools wires the stages together; a stage that imports it cannot be built without the rest"
	engines = "only infra/embedded and tools know whether an engine is ours or the operator's; " +
		"the rest is given addresses"
	replica = "the replica tells whoever follows a user, by its own interface: it knows neither devices nor sessions"
	fanout  = "fanout pushes to a Session, by its own interface: it knows no more of one"
	inputs  = "flags and the environment are read only in tools; a package gets a Config"
)

var forbidden = []edge{
	{from: "infra", to: "ingest", reason: upwards},
	{from: "infra", to: "projector", reason: upwards},
	{from: "infra", to: "delivery", reason: upwards},
	{from: "infra", to: "edge", reason: upwards},

	{from: "ingest", to: "projector", reason: stages},
	{from: "ingest", to: "delivery", reason: stages},
	{from: "ingest", to: "edge", reason: stages},

	{
		from:   "projector",
		to:     "ingest",
		reason: "a projector only reads the log: what it could append would change at every replay",
	},
	{from: "projector", to: "delivery", reason: "replay has no side effects, so a projector cannot push"},
	{from: "projector", to: "edge", reason: stages},

	{from: "delivery", to: "ingest", reason: "delivery only reads the log; ingest alone appends, for the edge"},
	{from: "delivery", to: "projector", reason: stages},
	{from: "delivery", to: "edge", reason: stages},

	{from: "edge", to: "projector", reason: stages},
	{from: "edge", to: "delivery", reason: stages},

	{from: "edge/replica", to: "edge/fanout", reason: replica},
	{from: "edge/replica", to: "edge/session", reason: replica},
	{from: "edge/replica", to: "edge/auth", reason: replica},
	{from: "edge/replica", to: "edge/query", reason: replica},
	{from: "edge/fanout", to: "edge/session", reason: fanout},
	{from: "edge/fanout", to: "edge/auth", reason: fanout},
	{from: "edge/fanout", to: "edge/query", reason: fanout},
	{
		from:       "edge",
		to:         "edge/replica/replicatest",
		except:     []string{"edge/replica/replicatest"},
		production: true,
		reason:     "it is a log and views in memory for tests",
	},

	{from: "infra", to: "tools", reason: binary},
	{from: "ingest", to: "tools", reason: binary},
	{from: "projector", to: "tools", reason: binary},
	{from: "delivery", to: "tools", reason: binary},
	{from: "edge", to: "tools", reason: binary},

	{from: "ingest", to: "infra/embedded", production: true, reason: engines},
	{from: "projector", to: "infra/embedded", production: true, reason: engines},
	{from: "delivery", to: "infra/embedded", production: true, reason: engines},
	{from: "edge", to: "infra/embedded", production: true, reason: engines},
	{from: "infra", to: "infra/embedded", except: []string{"infra/embedded"}, production: true, reason: engines},
	{
		from:       "",
		to:         "github.com/twmb/franz-go/pkg/kfake",
		except:     []string{"infra/embedded", "infra/kafka/kafkatest"},
		production: true,
		reason:     engines,
	},
	{
		from:       "",
		to:         "github.com/ebitengine/purego",
		except:     []string{"infra/embedded"},
		production: true,
		reason:     engines,
	},

	{from: "", to: "infra/kafka/kafkatest", production: true, reason: "it has accidents happen to a broker, for tests"},
	{from: "", to: "infra/kafka/real", production: true, reason: "it starts an Apache Kafka for a test"},
	{from: "", to: "schemas/goldentest", production: true, reason: "it reads and writes files of goldens for tests"},
	{
		from:       "",
		to:         "testing",
		except:     []string{"infra/kafka/real", "infra/kafka/kafkatest", "infra/embedded", "schemas/goldentest"},
		production: true,
		reason:     "the product does not link the test framework",
	},

	{from: "", to: "flag", except: []string{"tools"}, production: true, reason: inputs},
	{from: "", to: "github.com/alecthomas/kong", except: []string{"tools"}, production: true, reason: inputs},
}

// schemas is what every stage and every tool that reads the log depends on. So it
// may depend on nothing of ours, and outside the standard library only on these.
var schemasMayImport = []string{"google.golang.org/protobuf"}

const schemasReason = "schemas is shared by everything that reads the log: " +
	"only the standard library and the protobuf runtime"

// topLevel is all that may stand beside dot files at the top of the tree. bin is
// where the Makefile builds, and is not committed.
var topLevel = map[string]bool{
	"ingest": true, "projector": true, "delivery": true, "edge": true,
	"schemas": true, "infra": true, "tools": true,
	"go.mod": true, "go.sum": true, "Makefile": true, "README.md": true, "LICENSE": true,
	"bin": true,
}

// vagueNames say nothing about what is inside.
var vagueNames = map[string]bool{
	"util": true, "utils": true, "common": true, "helper": true, "helpers": true,
	"type": true, "types": true, "model": true, "models": true, "misc": true,
}

// A room holds every question to some tables: what reads from one or joins it. What is taken away is no question, nor
// is what a test asks.
type room struct {
	folder string
	tables []string
	// except lists folders and files that may ask after all, with why.
	except map[string]string
	reason string
}

var rooms = []room{
	{
		folder: "infra/views",
		tables: []string{
			"positions", "quarantine", "users", "devices", "contacts", "blocks", "user_threads", "threads", "members",
			"invitations", "watermarks", "device_watermarks", "messages", "trimmed", "rejected",
			"user_invitations",
		},
		except: map[string]string{
			"infra/history":             "it has tables of the same names",
			"projector/threads/trim.go": "what it takes away it chooses by a question",
			"tools/demo/ending.go":      "it shows what an analyst asks",
		},
		reason: "what moment an answer sees, and how it is planned, is said and tested once, in infra/views",
	},
	{
		folder: "infra/history",
		tables: []string{"thread_events", "message_changes", "memberships", "receipts"},
		reason: "what an answer holds while parts have not merged is said and tested once, in infra/history",
	},
}

// unfinished are the words by which code says that it is not done. They are put
// together here so that this file does not find itself.
var unfinished = []string{"TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"}
