package views

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/postgres"
	schemas "heliograph/schemas/postgres"
)

// TestPlans: what is asked by keys is found by an index, also by the plan that a prepared statement keeps, which was
// made when the tables were empty and knows no parameter.
func TestPlans(t *testing.T) {
	ctx := t.Context()
	url := enginetest.NewDatabase(t)
	files, err := fs.Sub(schemas.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(ctx, url, files, schemas.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	pool, err := postgres.Open(ctx, postgres.Config{URL: url, MaxConns: 1, Params: map[string]string{
		"search_path": schemas.ViewsSchema, "plan_cache_mode": "force_generic_plan",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	for name, c := range map[string]struct {
		sql   string
		index []string // names that the plan has
	}{
		"a message by its id": {sqlMessage, []string{"messages_0_message_id_thread_id_idx"}},
		"sent messages":       {sqlSent, []string{"messages_0_message_id_thread_id_idx", "Nested Loop"}},
		"recent messages":     {sqlRecent, []string{"threads_pkey", "messages_0_thread_id_log_time_idx"}},
		"newest messages":     {sqlNewest, []string{"messages_0_pkey", "Nested Loop"}},
		"latest log times":    {sqlLatest, []string{"messages_0_thread_id_log_time_idx", "Nested Loop"}},
		"tails":               {sqlTails, []string{"messages_0_pkey", "Nested Loop"}},
		"a page":              {sqlPage, []string{"Merge Append"}}, // all parts are left out for a null
		"cursors":             {sqlCursors, []string{"device_watermarks_pkey", "Nested Loop"}},
		"devices by key":      {sqlDevicesByKey, []string{"devices_pkey", "Nested Loop"}},
		"whom not to add":     {sqlUnaddable, []string{"blocks_pkey", "users_pkey", "user_threads_pkey"}},
		"who has blocked":     {sqlBlockedBy, []string{"blocks_pkey"}},
		"whom one has":        {sqlBlockedOf, []string{"blocks_pkey"}},
		"how many one has":    {sqlBlockedButOne, []string{"blocks_pkey"}},
		"invitations":         {sqlInvitationsOf, []string{"user_invitations_pkey", "blocks_pkey"}},
		"invited to a thread": {sqlInvitedTo, []string{"user_invitations_pkey", "blocks_pkey"}},
		"users by number":     {sqlUsersByPhone, []string{"users_phone_hash"}},
		"threads":             {sqlThreads + ofThreads, []string{"threads_pkey"}},
		"members":             {sqlMembers + ofThreads, []string{"members_pkey"}},
		"who is invited":      {sqlInvitations + ofThreads, []string{"invitations_pkey"}},
		"the invited by name": {sqlInvitees, []string{"invitations_pkey", "users_pkey"}},
		"rejected messages":   {sqlRejectedOf, []string{"rejected_pkey", "Nested Loop"}},
		"unread messages":     {sqlUnread, []string{"messages_0_pkey", "trimmed_pkey", "Nested Loop"}},
		"the list":            {sqlList, []string{"CTE page", "user_threads_pkey", "threads_pkey", "members_pkey"}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := pool.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
			if _, err := conn.Exec(ctx, "DEALLOCATE ALL", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(ctx, "PREPARE q AS "+c.sql, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			n := 0 // parameters: they are $1, $2 … without a gap, and may be named more than once
			for strings.Contains(c.sql, fmt.Sprintf("$%d", n+1)) {
				n++
			}
			nulls := strings.TrimSuffix(strings.Repeat("NULL, ", n), ", ")
			rows, err := conn.Query(ctx, "EXPLAIN EXECUTE q("+nulls+")", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(lines, "\n")
			for _, index := range c.index {
				if !strings.Contains(plan, index) {
					t.Errorf("the plan lacks %s", index)
				}
			}
			if strings.Contains(plan, "Seq Scan") {
				t.Error("the plan reads a table whole")
			}
			if t.Failed() {
				t.Log(plan)
			}
		})
	}
}
