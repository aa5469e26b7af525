// Package postgres embeds the migrations of the Postgres stores: Views (the thread views, a pure function of the log)
// and Registration (PINs and their limits, which are never in the log and may be lost).
//
// The statements name no schema: the connection's search_path says which one, so that a rebuild can stand beside the
// live view.
//
// Non-obvious:
//   - A file that has landed is never edited; a change is a further file.
//   - Times are log times. Positions are per (topic, slot) and mean nothing across slots.
package postgres

import "embed"

//go:embed views/*.sql registration/*.sql
var files embed.FS

// FS holds the directories "views" and "registration".
var FS = files

// ViewsSchema is the default schema of the thread views.
const ViewsSchema = "views"

// RegistrationSchema is the schema of PINs and limits.
const RegistrationSchema = "registration"
