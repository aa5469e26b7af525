package wire

// What a side can do beside the first version of the protocol.
const (
	// Abandon: AbandonMessage, and CODE_OUT_OF_TURN.
	Abandon = "abandon"
	// Background: Authenticate.background.
	Background = "background"
	// Invitations: SetMayAdd, InviteMembers and what belongs to them, and CODE_NOT_ADDABLE.
	Invitations = "invitations"
	// MarkAnswer: Watermarks with a request id are answered.
	MarkAnswer = "mark-answer"
	// OwnCursors: Have, and Sync.own_cursors.
	OwnCursors = "own-cursors"
	// Ping: Ping.
	Ping = "ping"
	// SyncWindow: Sync.window, and SyncMore.
	SyncWindow = "sync-window"
	// ReplyRef: what a message answers is named by author and id.
	ReplyRef = "reply-ref"
)

// Features (wire 3.3) are the words of what this version of the protocol can do, sorted; both sides say theirs in Hello
// and Welcome.
var Features = []string{Abandon, Background, Invitations, MarkAnswer, OwnCursors, Ping, ReplyRef, SyncWindow}

// Bounds of a list of features.
const (
	// MaxFeatures is how many words it has at most.
	MaxFeatures = 64
	// MaxFeature is the longest word in bytes.
	MaxFeature = 32
)

// ValidFeatures tells whether a list keeps to its form: sorted, each word once, of 1 to MaxFeature bytes of a-z, 0-9,
// '-' and '.'. Words that this version does not know are valid.
func ValidFeatures(words []string) bool {
	if len(words) > MaxFeatures {
		return false
	}
	for i, w := range words {
		if len(w) == 0 || len(w) > MaxFeature || i > 0 && words[i-1] >= w {
			return false
		}
		for _, c := range []byte(w) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
				return false
			}
		}
	}
	return true
}
