package main

// mutations are faults that somebody could make, one or more for each promise. A test that is to keep a promise is
// worth what it notices; a review found that several did not notice these.
var mutations = []mutation{
	{
		name: "the producer asks for one broker's word", promise: "P1",
		file:  "infra/kafka/producer.go",
		old:   "kgo.RequiredAcks(kgo.AllISRAcks()),",
		new:   "kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(),",
		tests: []string{"./infra/kafka -run TestProducer"},
	},
	{
		name: "the producer is not idempotent", promise: "P1",
		file:  "infra/kafka/producer.go",
		old:   "kgo.RequiredAcks(kgo.AllISRAcks()),",
		new:   "kgo.RequiredAcks(kgo.AllISRAcks()), kgo.DisableIdempotentWrite(),",
		tests: []string{"./infra/kafka -run TestProducer"},
	},
	{
		name: "what the log did not take is acknowledged", promise: "P1",
		file:  "ingest/ingest.go",
		old:   "if err = i.settle(t, slot, l, f, err); err != nil {",
		new:   "if err = i.settle(t, slot, l, f, err); err != nil && h.done == nil {",
		tests: []string{"./ingest"},
	},
	{
		name: "what was beside a refused record is refused", promise: "P1",
		file:  "ingest/lane.go",
		old:   "alone = f.alone && l.handed == f.nth",
		new:   "alone = true",
		tests: []string{"./ingest -run Refused"},
	},
	{
		name: "one partition takes the log down for all", promise: "P5",
		file:  "ingest/ingest.go",
		old:   "kick(i.probe) // is it the whole log?",
		new:   "i.down.Store(true)\n\t\tkick(i.probe)",
		tests: []string{"./ingest -run Partition"},
	},
	{
		name: "a log that is down is asked all the same", promise: "P5",
		file:  "ingest/ingest.go",
		old:   "\tif i.down.Load() {\n\t\ti.refuse(t, reasonDown, done)",
		new:   "\tif i.down.Load() && i.closed.Load() {\n\t\ti.refuse(t, reasonDown, done)",
		tests: []string{"./ingest -run Down"},
	},
	{
		name: "a retry is a second message", promise: "P2",
		file:  "schemas/thread/fold.go",
		old:   "ok && repeats(e, seen, now, logTimeMS) {",
		new:   "ok && repeats(e, seen, now, logTimeMS) && at < 0 {",
		tests: []string{"./schemas/thread"},
	},
	{
		name: "an edge takes what it did not load for new", promise: "P2",
		file:  "edge/replica/lookup.go",
		old:   "return unsure && at >= t.state.Next",
		new:   "return unsure && at < 0",
		tests: []string{"./edge/replica -run Beyond"},
	},
	{
		name: "a projector forgets a stamp that is ahead", promise: "P3",
		file:  "projector/threads/load.go",
		old:   "state.RestorePartly(ms)",
		new:   "state.RestorePartly(min(ms, state.LastTimeMS))",
		tests: []string{"./projector/threads -run TestRetries"},
	},
	{
		name: "catch-up reads one position short", promise: "P2",
		file:  "edge/fanout/feed.go",
		old:   "After: after, UpTo: l.target, FloorMS",
		new:   "After: after, UpTo: l.target - 1, FloorMS",
		tests: []string{"./edge/fanout -run ^Test[^M]"},
	},
	{
		name: "the tail of a thread ends one position short", promise: "P2",
		file:  "infra/views/tail.go",
		old:   "position > k.after AND position <= k.up_to",
		new:   "position > k.after AND position < k.up_to",
		tests: []string{"./edge/replica -run Postgres"},
	},
	{
		name: "the tail of a thread begins one position late", promise: "P2",
		file:  "infra/views/tail.go",
		old:   "position > k.after AND position <= k.up_to",
		new:   "position > k.after + 1 AND position <= k.up_to",
		tests: []string{"./edge/replica -run Postgres"},
	},
	{
		name: "live events are not held back during a sync", promise: "P2",
		file:  "edge/fanout/device.go",
		old:   "\tcase syncing:\n\t\td.hold(p, f.bounds)\n",
		new:   "\tcase syncing:\n\t\tf.pushNow(d, p.frame, p.echo)\n",
		tests: []string{"./edge/fanout -run ^Test[^M]"},
	},
	{
		name: "live events are not held back during a catch-up", promise: "P2",
		file:  "edge/fanout/device.go",
		old:   "if at != postponed {\n\t\t\t\td.hold(p, f.bounds)\n\t\t\t}\n\t\t\treturn",
		new:   "_ = at",
		tests: []string{"./edge/fanout -run ^Test[^M]"},
	},
	{
		name: "the position of a view is committed before its rows", promise: "P2",
		file: "projector/threads/write.go",
		old: "\treturn s.commit(ctx, w, quarantineRows(tableQuarantine, f.Quarantined), func(q *pgx.Batch) {\n" +
			"\t\tfor _, m := range moves {",
		new: "\tnone := newWrites(b.Slot, &projector.States{})\n" +
			"\tif err := s.commit(ctx, none, quarantineRows(tableQuarantine, nil), func(q *pgx.Batch) {\n" +
			"\t\tfor _, m := range moves {\n" +
			"\t\t\tq.Queue(sqlAdvance, m.topic.Number(), int32(b.Slot), int64(m.expect), int64(m.next),\n" +
			"\t\t\t\tprojector.Time(m.timeMS))\n" +
			"\t\t}\n\t}); err != nil {\n\t\treturn err\n\t}\n" +
			"\tmoves = nil\n" +
			"\treturn s.commit(ctx, w, quarantineRows(tableQuarantine, f.Quarantined), func(q *pgx.Batch) {\n" +
			"\t\tfor _, m := range moves {",
		tests: []string{"./projector/threads -run AnyStatement"},
	},
	{
		name: "the history inserts under a token that never comes again", promise: "P2",
		file:  "projector/history/write.go",
		old:   `if token == "" {`,
		new:   `if token != "once" {`,
		tests: []string{"./projector/history -run Killed"},
	},
	{
		name: "the history inserts without a token", promise: "P3",
		file:  "projector/history/write.go",
		old:   `"insert_deduplicate": 1, "insert_deduplication_token": token,`,
		new:   `"insert_deduplicate": min(1, len(token)),`,
		tests: []string{"./projector/history -run Rebuild"},
	},
	{
		name: "a quarantine that was left cannot be said again", promise: "P3",
		file:  "projector/history/write.go",
		old:   `token = "once/" + uuid.NewString()`,
		new:   `token = fmt.Sprint("once/", t.name, len(uuid.NewString()), rows)`,
		tests: []string{"./projector/history -run Again"},
	},
	{
		name: "the history is done before its rows", promise: "P3",
		file: "projector/history/write.go",
		old:  "\tquarantine := append(quarantineRows(f.Quarantined, false), released...)\n\tif err",
		new: "\tearly := slices.Clone(ranges)\n\tfor i := range early {\n\t\tearly[i].state = history.Done\n\t}\n" +
			"\tif err := s.positions.put(ctx, early); err != nil {\n\t\treturn err\n\t}\n" +
			"\tquarantine := append(quarantineRows(f.Quarantined, false), released...)\n\tif err",
		tests: []string{"./projector/history -run Killed"},
	},
	{
		name: "a zombie writes to the history", promise: "P3",
		file:  "projector/history/owner.go",
		old:   "if by[slot] != mine {",
		new:   "if by[slot] == 0 && mine == 0 {",
		tests: []string{"./projector/history -run Zombie"},
	},
	{
		name: "who takes over the history does not say so first", promise: "P3",
		file:  "projector/history/load.go",
		old:   "\tif err := s.claim(ctx, slot); err != nil {\n\t\treturn out, err\n\t}\n",
		new:   "\tdefer func() { _ = s.claim(ctx, slot) }()\n",
		tests: []string{"./projector/history -run TakeOver"},
	},
	{
		name: "a zombie writes to the thread views", promise: "P3",
		file: "projector/threads/write.go",
		old: "q.Queue(\n" +
			"\t\t\t\tsqlAdvance, m.topic.Number(), int32(b.Slot), int64(m.expect), int64(m.next), " +
			"projector.Time(m.timeMS),\n" +
			"\t\t\t)",
		new:   "_ = m",
		tests: []string{"./projector/threads -run Zombie"},
	},
	{
		name: "the fold takes messages of those who left", promise: "P4",
		file:  "schemas/thread/fold.go",
		old:   "\tcase !s.IsMember(actor):\n\t\treturn reject(NotMember)\n\t}\n\ts.LastOrdinal++",
		new:   "\t}\n\ts.LastOrdinal++",
		tests: []string{"./schemas/thread"},
	},
	{
		name: "a member's change of his role is taken by the fold", promise: "P4",
		file:  "schemas/thread/fold.go",
		old:   "\tcase s.Members[actor].Role != RoleAdmin:\n\t\treturn reject(NotAdmin), false\n",
		new:   "",
		tests: []string{"./schemas/thread"},
	},
	{
		name: "the edge takes messages of who is no member", promise: "P4",
		file:  "edge/session/deps.go",
		old:   "return notMember()",
		new:   "return nil",
		tests: []string{"./edge -run MembersOfAGroup"},
	},
	{
		name: "the edge lets members do what admins may", promise: "P4",
		file:  "edge/session/groups.go",
		old:   "case admin && v.Roster.Role(s.user) != thread.RoleAdmin:",
		new:   "case admin && v.Roster.Role(s.user) == 0 && v.Roster.Role(s.user) != thread.RoleAdmin:",
		tests: []string{"./edge -run Admin"},
	},
	{
		name: "the limiter of PINs fails open", promise: "",
		file:  "edge/auth/limit.go",
		old:   "return false, 0, fmt.Errorf(\"limit bucket: %w\", err)",
		new:   "return true, 0, nil",
		tests: []string{"./edge/auth -run FailClosed"},
	},
	{
		name: "PINs are asked for and tried without the limiter", promise: "",
		file:  "edge/auth/limit.go",
		old:   "return a.unavailable(\"limit\", err)",
		new:   "ok = true",
		tests: []string{"./edge/auth -run FailClosed"},
	},
	{
		name: "a device that lags is not told", promise: "P6",
		file:  "edge/fanout/device.go",
		old:   "\td.reset(off)\n\td.sess.Lagged()",
		new:   "\td.reset(off)",
		tests: []string{"./edge/fanout -run ^Test[^M]"},
	},
	{
		name: "a replay takes part in a group", promise: "P7",
		file:  "infra/kafka/consumer.go",
		old:   "if cfg.Group != \"\" {\n\t\treturn errors.New(\"kafka: a replay takes no group\")",
		new:   "if cfg.Group == \"none\" {\n\t\treturn errors.New(\"kafka: a replay takes no group\")",
		tests: []string{"./infra/kafka -run TestReplayOf -timeout 60s"},
	},
	{
		name: "what is parked is reported event by event", promise: "P7",
		file:  "projector/sink.go",
		old:   "if kind == \"parked\" {\n\t\t\tcontinue",
		new:   "if kind == \"none\" {\n\t\t\tcontinue",
		tests: []string{"./projector/threads -run ParksItsSubject"},
	},
	{
		name: "a member whose place is taken stays for ever", promise: "",
		file:  "infra/kafka/member.go",
		old:   "!since.IsZero() && gone > c.cfg.SessionTimeout {",
		new:   "!since.IsZero() && gone > 1000*c.cfg.SessionTimeout {",
		tests: []string{"./infra/kafka -run Taken -timeout 50s"},
	},
}
