// Package chat is the terminal chat behind `helio chat`: a screen for people (bubbletea) and a few commands for
// scripts, both over the Go SDK heliograph/edge/client.
//
// Promise: what the screen shows of a message is what the log says about it. A clock means that the message lies in
// this device's outbox, one check mark that the log has it, two that every other member's device has it, two coloured
// ones that every other member has seen it. Nothing that others wrote can reach the terminal as a control sequence:
// every text goes through Clean first.
//
// Order: events of a thread stand by position. Live events and pages of history are merged by position, so a page may
// overlap what is there.
//
// Durability: the device file (client.FileStore) keeps identity, cursors and outbox. The screen itself keeps nothing:
// it asks for the thread list and for history when it starts and after every reconnect.
//
// When slow or restarted: the program takes one event at a time from the client, whose queue is bounded; a screen that
// stands still makes the client stop reading, and the server makes it catch up later.
//
// Non-obvious:
//   - Model is a pure function of the messages it is given, except that it calls Client.Send and Client.MarkRead in
//     place: so the order of typing is the order of sending.
//   - Scrolling is counted in lines from the bottom: a page of history that is put in front moves nothing on the
//     screen.
//   - Widths are counted as the terminal counts them: by code point until it says that it clusters graphemes (mode
//     2027).
//   - The read watermark moves to the lowest event on the screen, not to the newest that has come.
package chat
