package edge

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/quic-go/quic-go"

	"heliograph/edge/fanout"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// specification is the text whose rules these tests hold the edge to.
const specification = "../schemas/wire/v1/wire.proto"

// rulesOf reads the numbered rules of the specification.
func rulesOf(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(specification)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(raw), "\npackage ")
	out := map[string]string{}
	for _, part := range regexp.MustCompile(`(?m)^//   (?:\d+\.\d+) .*(?:\n//        .*)*`).FindAllString(text, -1) {
		words := strings.Fields(strings.ReplaceAll(part, "//", " "))
		if out[words[0]] != "" {
			t.Errorf("rule %s is there twice", words[0])
		}
		out[words[0]] = strings.Join(words[1:], " ")
	}
	if n := strings.Count(text, "\n//   "); len(out) < 50 || n != len(out)+strings.Count(text, "\n//        ") {
		t.Errorf("%d rules were read, which is not all", len(out))
	}
	return out
}

// heldTo says by which test the edge, or our client where it binds that, is held to each rule: one of ruleTests, or
// tests of these packages.
var heldTo = map[string]string{
	"1.1": "TestFaultsAreNamed",
	"1.2": "TestNarrowPath TestTunnel",
	"2.5": "TestPing",
	"2.6": "TestLeaveAgain TestLinkDeviceAgain TestRegisterAgain TestChangesAreAnsweredByTheirVerdict",
	"2.7": "TestEventsNameTheirRequestAndCause TestRequestID",
	"3.1": "TestOrderOfStates",
	"3.2": "TestOrderOfStates TestHostileFramesInEachStage",
	"3.4": "TestLimits", "3.7": "TestRegisterAgain TestPinIsUsedOnce TestStrangersTriesLockNobodyOut",
	"3.8": "TestBackgroundSession TestBackground",
	"3.9": "TestAttach TestHistoryOfANewDevice", "3.10": "TestRevokedAtOnce", "4.2": "TestRegister",
	"4.3": "TestReplayedProofIsWorthNothing", "4.4": "TestRegisterRefusals TestAuthenticate",
	"5.2": "TestModel", "5.3": "TestReceiptsGoToThoseConcerned TestReceiptsThatDoNotFit",
	"5.4": "TestAwayLongerThanTheTail TestSyncOutlastsAStoreThatIsDown", "5.7": "TestLiveWithTheStoreDown",
	"5.8": "TestAThreadWithoutRoomHoldsUpNoOther",
	"5.9": "TestDroppedByAnOperator TestParkedThreadStopsAlone",
	"6.1": "TestModel TestEventsAfterBreak", "6.2": "TestModel TestRepeatsWatermarkThatWasLost",
	"6.3": "TestReceiptIsNeverLower", "6.4": "TestWatermarksAreAnswered TestWatermarksAreSlowedDown",
	"6.5": "TestSendingReadsNothing TestUnreadIsOfOthers", "6.6": "TestReceiptsAreCoalesced",
	"7.1": "TestMessageTravels", "7.2": "TestMessageTravels TestSendsAgainAfterLoss",
	"7.3": "TestFirstMessagesKeepTheirOrder TestClientKeepsItsOrderOverRefusals",
	"7.4": "TestRefusedMessageHoldsThoseBehindIt TestRefusedSendsKeepTheirOrder",
	"7.5": "TestRefusedMessageHoldsThoseBehindIt TestAbandonedMessageLetsTheOthersPass TestClientGivesUp",
	"7.6": "TestSendsAgainAfterLoss", "7.7": "TestMessageTravels TestGroup",
	"7.8": "TestUnknownFieldsCount TestSendRefusals", "7.9": "TestRemovedMember",
	"7.10": "TestChangesAreAnsweredByTheirVerdict", "7.11": "TestStrangersLearnNothing",
	"7.12": "TestWhatIsKeptForEverHasABudget TestDeliveriesCount TestSpendIsOfAllEdges",
	"7.13": "TestTheBlockedAddNobody TestThreadsOfAUserAreBounded TestWhoCannotBeAddedIsNamed",
	"8.1":  "TestLaggingDeviceGetsResync TestSlowReaderIsToldToSyncThenClosed",
	"9.1":  "TestDrain", "9.2": "TestCrowdNoticesRestart TestDeadEdgeIsLeft",
	"10.1": "TestHistoryComesOnItsOwnStream",
	"10.2": "TestHistoryWithoutStreams TestHistoryOverOneStream TestPagesThatNobodyReadsStarveNobody",
	"10.3": "TestHistoryBorder TestHistoryOfLargeMessages", "10.4": "TestHistoryShowsSpans",
	"11.1": "TestWritings TestNumbers", "11.2": "TestNumbers", "11.3": "TestNumbers",
	"12.1": "TestRestoredFromABackup TestSaysWhatItsStoreHas",
	"12.3": "TestDigestOfReceipts TestAReconnectCostsWhatChanged",
	"12.4": "TestAWindowOfThreads", "12.5": "TestAWindowOfThreads TestModel",
	"14.1": "TestHistoryBeforeWhatTheViewsLack TestReadsAreNotOlderThanWhatWasTold", "14.2": "TestViews",
	"16.1": "TestWhoCannotBeAddedIsNamed TestSettings",
	"16.2": "TestInvitationIsAccepted TestInvitationsIntoAGroupAreBounded TestInvitationsAreMendedByAskingAgain",
	"16.3": "TestBlockedInviterIsNotHeardOf",
	"16.4": "TestInvitationIsAccepted TestInvitationsAreListedAfterSync TestClientInvites",
	"16.5": "TestInvitationIsAccepted TestAcceptIntoAFullGroup TestEndedInvitationIsNotAccepted",
	"16.6": "TestAnswersOfStrangers TestWhoMayInvite", "16.7": "TestEndedInvitationIsNotAccepted TestWhoMayInvite",
	"16.8": "TestGetThreadTellsWhoIsInvited", "16.9": "TestSettings",
	"15.1": "TestFreshIDs TestSendRefusals", "15.2": "TestGoldenVectors",
}

// TestRules: each rule of the protocol has a test, and code that names it.
func TestRules(t *testing.T) {
	rules := rulesOf(t)
	tests, cited := map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	cite := regexp.MustCompile(`\bwire\s+(?:// )?((?:\d+\.\d+(?:,|\s|to|and|//)*)+)`)
	number := regexp.MustCompile(`\d+\.\d+`)
	for _, root := range []string{".", "../schemas"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, ".pb.go") {
				return err
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if strings.HasSuffix(path, "_test.go") {
				for _, m := range name.FindAllStringSubmatch(string(raw), -1) {
					tests[m[1]] = true
				}
				return nil
			}
			for _, m := range cite.FindAllStringSubmatch(string(raw), -1) {
				for _, r := range number.FindAllString(m[1], -1) {
					cited[r] = true
					if rules[r] == "" {
						t.Errorf("%s names rule %s, which is not there", path, r)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for r := range rules {
		switch by := strings.Fields(heldTo[r]); {
		case ruleTests[r] == nil && len(by) == 0:
			t.Errorf("no test of rule %s: %s", r, rules[r])
		default:
			for _, x := range by {
				if !tests[x] {
					t.Errorf("rule %s: there is no %s", r, x)
				}
			}
		}
		if !cited[r] {
			t.Errorf("no code names rule %s: %s", r, rules[r])
		}
	}
	for r := range heldTo {
		if rules[r] == "" {
			t.Errorf("a test of rule %s, which is not there", r)
		}
	}
	for r, run := range ruleTests {
		if rules[r] == "" {
			t.Errorf("a test of rule %s, which is not there", r)
		}
		t.Run(r, run)
	}
}

// padded is a frame of n bytes in all but its length: a Ping with a field that nobody knows.
func padded(n int, req byte) []byte {
	b := []byte{0x08, req, 0xda, 0x01, 0} // request_id; ping
	b = append(b, 0xba, 0x3e)             // field 999
	rest := n - len(b)
	size := 1
	for rest-size >= 1<<(7*size) {
		size++
	}
	for k, v := 0, rest-size; k < size; k, v = k+1, v>>7 {
		c := byte(v & 0x7f)
		if k < size-1 {
			c |= 0x80
		}
		b = append(b, c)
	}
	return append(frame.AppendLength(nil, n), append(b, make([]byte, rest-size)...)...)
}

var ruleTests = map[string]func(*testing.T){
	"1.1": func(t *testing.T) {
		f := start(t, nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		other := f.tls.Clone()
		other.NextProtos = []string{"helio/0"}
		if c, err := quic.DialAddr(ctx, f.Addr().String(), other, nil); err == nil {
			_ = c.CloseWithError(0, "")
			t.Error("a connection with another ALPN")
		}
	},
	"1.3": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491")
		if s, err := d.conn.OpenStream(); err == nil {
			t.Errorf("a second stream %d was allowed", s.StreamID())
		}
		if s, err := d.conn.OpenUniStream(); err == nil {
			t.Errorf("a stream of one way %d was allowed", s.StreamID())
		}
		if err := d.str.Close(); err != nil {
			t.Fatal(err)
		}
		d.closed(wirev1.Code_CODE_UNSPECIFIED)
	},
	"1.4": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491")
		d.raw([]byte{0, 0x40, 0})
		d.raw([]byte{0xc0, 0, 0, 0, 0, 0, 0, 5, 0x08, 77, 0xda, 0x01, 0})
		if got := d.answer(77); !got.HasPong() {
			t.Errorf("got %v", got)
		}
	},
	"1.5": func(t *testing.T) {
		f := start(t, nil)
		d := f.dial(t)
		d.raw(padded(8192, 77))
		d.refused(d.answer(77), wirev1.Code_CODE_NOT_AUTHENTICATED)
		d.raw(padded(8193, 78))
		d.closed(wirev1.Code_CODE_FRAME_TOO_LARGE)
		d = f.dial(t).register("+491")
		d.raw(padded(wire.MaxFrame, 77))
		if got := d.answer(77); !got.HasPong() {
			t.Errorf("got %v", got)
		}
		d.raw(frame.AppendLength(nil, wire.MaxFrame+1))
		d.closed(wirev1.Code_CODE_FRAME_TOO_LARGE)
		d = f.dial(t).register("+492")
		d.raw([]byte{2, 0xff, 0xff})
		d.closed(wirev1.Code_CODE_PROTOCOL)
	},
	"1.6": func(t *testing.T) {
		d := start(t, nil).dial(t)
		f := d.ask(wirev1.ClientFrame_builder{Hello: wirev1.Hello_builder{Features: []string{"zz.1"}}.Build()})
		if d.nonce = f.GetWelcome().GetNonce(); len(d.nonce) != wire.NonceSize {
			t.Fatalf("got %v", f)
		}
		d.raw([]byte{4, 0xf2, 0x07, 1, 'x'})           // field 126, no request id
		d.raw([]byte{6, 0x08, 99, 0xf2, 0x07, 1, 'x'}) // the same as request 99
		d.refused(d.answer(99), wirev1.Code_CODE_NOT_AUTHENTICATED)
		d.raw(padded(100, 98))
		d.refused(d.answer(98), wirev1.Code_CODE_NOT_AUTHENTICATED)
	},
	"1.7": func(t *testing.T) {
		f := start(t, func(c *Config) { c.idleTimeout = 100 * time.Millisecond })
		f.dial(t).register("+491") // keeps nothing alive
		until(t, "the end of the session", func() bool { return f.Sessions() == 0 })
	},
	"2.1": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491").sync()
		g, m := id.NewGroup(), id.NewMessage()
		open := map[uint64]bool{}
		for _, b := range []wirev1.ClientFrame_builder{
			{Ping: &wirev1.Ping{}}, {Sync: &wirev1.Sync{}}, {ListThreads: &wirev1.ListThreads{}},
			{ListDevices: &wirev1.ListDevices{}}, {GetUsers: &wirev1.GetUsers{}}, {LookupUsers: &wirev1.LookupUsers{}},
			{Watermarks: &wirev1.Watermarks{}}, {GetHistory: &wirev1.GetHistory{}}, {GetViews: &wirev1.GetViews{}},
			{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g"}.Build()},
			{SendMessage: wirev1.SendMessage_builder{ThreadId: g[:], MessageId: m[:], Content: text("x")}.Build()},
			{RenameThread: &wirev1.RenameThread{}}, {AbandonMessage: &wirev1.AbandonMessage{}},
			{ListInvitations: &wirev1.ListInvitations{}}, {GetSettings: &wirev1.GetSettings{}},
			{SetMayAdd: &wirev1.SetMayAdd{}}, {SetBlocked: &wirev1.SetBlocked{}},
			{InviteMembers: &wirev1.InviteMembers{}}, {AnswerInvitation: &wirev1.AnswerInvitation{}},
			{WithdrawInvitation: &wirev1.WithdrawInvitation{}},
			{SetProfile: &wirev1.SetProfile{}}, {RevokeDevice: &wirev1.RevokeDevice{}}, {SetRole: &wirev1.SetRole{}},
		} {
			open[d.send(b)] = true
		}
		for len(open) > 0 {
			f, err := d.read()
			if err != nil {
				t.Fatal(err)
			}
			if r := f.GetRequestId(); r != 0 && !open[r] {
				t.Errorf("answered again, or unasked: %v", f)
			}
			delete(open, f.GetRequestId())
		}
	},
	"2.2": func(t *testing.T) {
		f := start(t, nil)
		d := f.dial(t).register("+491")
		f.world.mu.Lock()
		f.world.sync = func(ctx context.Context, _ fanout.Session) error { <-ctx.Done(); return ctx.Err() }
		f.world.mu.Unlock()
		d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
		if got := d.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}); !got.HasDevices() {
			t.Errorf("got %v", got)
		}
	},
	"2.3": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491").sync()
		d.tell(wirev1.ClientFrame_builder{SetProfile: &wirev1.SetProfile{}})
		d.tell(wirev1.ClientFrame_builder{SendMessage: &wirev1.SendMessage{}})
		d.tell(wirev1.ClientFrame_builder{Watermarks: &wirev1.Watermarks{}})
		d.pushes = nil
		d.ask(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}})
		if len(d.pushes) != 0 {
			t.Errorf("answered: %v", d.pushes)
		}
	},
	"2.4": func(t *testing.T) {
		f := start(t, func(c *Config) { c.Session.MaxInflight = 2 })
		d := f.dial(t).register("+491")
		f.world.mu.Lock()
		f.world.sync = func(ctx context.Context, _ fanout.Session) error { <-ctx.Done(); return ctx.Err() }
		f.world.mu.Unlock()
		first := d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
		d.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
		third := d.send(wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}})
		for range 2 { // the first is cut short meanwhile, by the second (5.6)
			got, err := d.read()
			if err != nil {
				t.Fatal(err)
			}
			switch got.GetRequestId() {
			case first:
			case third:
				if got.HasError() {
					d.refused(got, wirev1.Code_CODE_TOO_MANY_REQUESTS)
				}
				return
			}
		}
	},
	"3.3": func(t *testing.T) {
		rule := rulesOf(t)["3.3"]
		for _, w := range wire.Features {
			if !strings.Contains(rule, w+" (") {
				t.Errorf("it does not say what %s is", w)
			}
		}
	},
	"3.5": func(t *testing.T) {
		f := start(t, nil)
		d := f.dial(t).register("+491")
		check := wirev1.CheckPhone_builder{Phone: "+4915112345678"}.Build()
		if got := d.ask(wirev1.ClientFrame_builder{CheckPhone: check}); !got.HasPhoneNumber() {
			t.Errorf("got %v", got)
		}
		d.sync() // no Authenticate in between
		for _, b := range []wirev1.ClientFrame_builder{
			{Authenticate: d.proof()}, {RequestPin: &wirev1.RequestPin{}}, {Hello: &wirev1.Hello{}},
		} {
			n := f.again(t, d)
			n.send(b)
			n.closed(wirev1.Code_CODE_PROTOCOL)
		}
		n := f.dial(t).hello()
		n.key, n.id, n.user = d.key, d.id, d.user
		wrong := n.proof()
		wrong.SetSignature(make([]byte, 64))
		n.refused(n.ask(wirev1.ClientFrame_builder{Authenticate: wrong}), wirev1.Code_CODE_AUTHENTICATION_FAILED)
		if got := n.ask(wirev1.ClientFrame_builder{Authenticate: n.proof()}); !got.HasAuthenticated() {
			t.Errorf("after a refusal: %v", got)
		}
	},
	"3.6": func(t *testing.T) {
		f := start(t, nil)
		d := f.dial(t).register("+491")
		for _, right := range []bool{true, false} {
			n := f.dial(t).hello()
			n.key, n.id, n.user = d.key, d.id, d.user
			p := n.proof()
			if !right {
				p.SetSignature(make([]byte, 64))
			}
			proof := n.send(wirev1.ClientFrame_builder{Authenticate: p})
			sync := n.send(wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}})
			if got := n.answer(proof); got.HasAuthenticated() != right {
				t.Errorf("proof right %v: %v", right, got)
			}
			got := n.answer(sync)
			if got.HasDone() != right || !right && got.GetError().GetCode() != wirev1.Code_CODE_NOT_AUTHENTICATED {
				t.Errorf("proof right %v: Sync behind it got %v", right, got)
			}
		}
	},
	"4.1": func(t *testing.T) { // by the text alone
		f := start(t, nil)
		d := f.dial(t).register("+491")
		n := f.dial(t).hello()
		state := n.conn.ConnectionState().TLS
		exporter, err := state.ExportKeyingMaterial("EXPORTER-heliograph", nil, 32)
		if err != nil {
			t.Fatal(err)
		}
		signed := slices.Concat([]byte("helio/1 auth\x00"), n.nonce, exporter, d.user[:], d.id[:])
		if got := n.ask(wirev1.ClientFrame_builder{Authenticate: wirev1.Authenticate_builder{
			UserId: d.user[:], DeviceId: d.id[:], Signature: ed25519.Sign(d.key, signed),
		}.Build()}); !got.HasAuthenticated() {
			t.Errorf("got %v", got)
		}
	},
	"5.1": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491")
		if got := d.ask(wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}}); !got.HasThreads() {
			t.Errorf("before Sync: %v", got)
		}
		d.sync()
	},
	"5.5": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491").sync()
		if n := len(d.pushes); n == 0 || !d.pushes[n-1].HasSyncComplete() {
			t.Errorf("before Done: %v", d.pushes)
		}
	},
	"5.6": TestSyncAgainCutsTheOneBefore,
	"12.2": func(t *testing.T) {
		f := start(t, nil)
		d := f.dial(t).register("+491")
		g := id.NewGroup()
		have := func(position int64) wirev1.ClientFrame_builder {
			c := wirev1.ThreadCursor_builder{ThreadId: g[:], Position: position}.Build()
			return wirev1.ClientFrame_builder{Have: wirev1.Have_builder{Threads: []*wirev1.ThreadCursor{c}}.Build()}
		}
		for _, position := range []int64{-1, 7} {
			if got := d.ask(have(position)); !got.HasDone() {
				t.Errorf("got %v", got)
			}
		}
		d.tell(have(-2))
		d.closed(wirev1.Code_CODE_PROTOCOL)
	},
	"12.4": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491").sync()
		got := d.ask(wirev1.ClientFrame_builder{SyncMore: wirev1.SyncMore_builder{Threads: 3}.Build()})
		if !got.HasSyncComplete() || got.GetSyncComplete().GetRest() != 7 {
			t.Errorf("got %v, want SyncComplete with 7 left of 10", got)
		}
	},
	"13.1": func(t *testing.T) {
		checkCodes(t, rulesOf(t)["13.1"], func(i wire.Info) bool { return i.Retriable })
	},
	"13.2": func(t *testing.T) {
		rule, _, _ := strings.Cut(rulesOf(t)["13.2"], "Others may")
		checkCodes(t, rule, func(i wire.Info) bool { return i.Closes })
	},
	"13.3": func(t *testing.T) {
		for _, c := range codes() {
			if i := wire.Lookup(c); i.Reconnect != (i.Retriable || c == 0) {
				t.Errorf("%v: reconnect %v", c, i.Reconnect)
			}
		}
	},
	"13.4": func(t *testing.T) {
		if i := wire.Lookup(999); !i.Retriable || i.Closes || !i.Reconnect {
			t.Errorf("got %+v", i)
		}
	},
	"13.5": func(t *testing.T) { // read holds every refusal of every test to it
		f := start(t, nil)
		a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
		f.world.mu.Lock()
		f.world.down = true
		f.world.mu.Unlock()
		a.refused(a.ask(direct(a, b, "x")), wirev1.Code_CODE_UNAVAILABLE)
	},
	"13.6": func(t *testing.T) {
		d := start(t, nil).dial(t).register("+491")
		if e := d.ask(wirev1.ClientFrame_builder{GetViews: &wirev1.GetViews{}}).GetError(); e.GetMessage() == "" {
			t.Errorf("got %v", e)
		}
	},
	"15.3": func(t *testing.T) { // by the text alone
		raw, err := os.ReadFile("../schemas/id/testdata/ids.json")
		if err != nil {
			t.Fatal(err)
		}
		var vectors struct {
			Threads []struct{ A, B, Thread uuid.UUID } `json:"direct_threads"`
		}
		if err := json.Unmarshal(raw, &vectors); err != nil || len(vectors.Threads) == 0 {
			t.Fatal(err)
		}
		for _, v := range vectors.Threads {
			a, b := v.A[:], v.B[:]
			if slices.Compare(a, b) > 0 {
				a, b = b, a
			}
			sum := sha256.Sum256(slices.Concat([]byte("helio/direct/1\x00"), a, b))
			got := uuid.UUID(sum[:16])
			got[6], got[8] = got[6]&0x0f|0x80, got[8]&0x3f|0x80
			if got != v.Thread {
				t.Errorf("%v and %v: %v, want %v", v.A, v.B, got, v.Thread)
			}
		}
	},
}

func codes() (out []wirev1.Code) {
	values := wirev1.Code(0).Descriptor().Values()
	for i := range values.Len() {
		out = append(out, wirev1.Code(values.Get(i).Number()))
	}
	return out
}

// checkCodes holds the codes that a rule lists against the table.
func checkCodes(t *testing.T, rule string, is func(wire.Info) bool) {
	t.Helper()
	words := regexp.MustCompile(`[A-Z_]{5,}`).FindAllString(rule, -1)
	for _, c := range codes() {
		name := strings.TrimPrefix(c.String(), "CODE_")
		if listed := slices.Contains(words, name); listed != is(wire.Lookup(c)) {
			t.Errorf("%s: listed %v, in the table %v", name, listed, !listed)
		}
	}
}
