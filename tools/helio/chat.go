package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"heliograph/edge/client"
	"heliograph/infra/run"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/tools/chat"
)

// chatCmd is a device: the screen for people, and commands for scripts. All share the profile's device file.
type chatCmd struct {
	Edge   []string `help:"Edges to connect to; default: that of the 'helio dev' that runs with --data." placeholder:"HOST:PORT" env:"HELIO_EDGE"`
	CA     string   `help:"PEM file of the authority that signed the edge's certificate; default: that of 'helio dev', else the system's." placeholder:"FILE" type:"path" env:"HELIO_EDGE_CA"`
	Data   string   `help:"Directory of the 'helio dev' to chat with." default:".helio" type:"path" env:"HELIO_DATA"`
	Region string   `help:"Country (two letters, ISO 3166-1) whose phone numbers may be written without a country code; default: that of LC_ALL or LANG." placeholder:"XX" env:"HELIO_REGION"`
	As     string   `help:"Profile: a device of its own, so that several people can chat from one machine." default:"me" placeholder:"NAME" env:"HELIO_PROFILE"`

	Open     chatOpenCmd     `cmd:"" default:"withargs" help:"Open the chat. This is what 'helio chat' alone does."`
	Register chatRegisterCmd `cmd:"" help:"Register a phone number without the screen."`
	Send     chatSendCmd     `cmd:"" help:"Send a message and wait until the log has it."`
	Tail     chatTailCmd     `cmd:"" help:"Print what comes in."`
	Threads  chatThreadsCmd  `cmd:"" help:"List the chats with their unread counts."`
}

// Help shows how it is used.
func (chatCmd) Help() string {
	return `Examples:
  helio chat --as ann                        (in one terminal)
  helio chat --as bob                        (in another)
  helio chat --as ann register --phone "+49 1512 3456789" --name Ann
  helio chat --as ann send "+49 1518 7654321" "Are you there?"
  date | helio chat --as ann send "Sunday walk"
  helio chat --as bob tail -o json
  helio chat --as bob threads -o json
  helio chat --edge chat.example.org:7443 --as ann`
}

// localeRegion returns the country of a locale's name (POSIX: language_TERRITORY.codeset), or nothing.
func localeRegion(locale string) string {
	_, rest, _ := strings.Cut(locale, "_")
	if len(rest) < 2 || len(rest) > 2 && rest[2] != '.' && rest[2] != '@' {
		return ""
	}
	return rest[:2]
}

var profileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// device is an open profile.
type device struct {
	cl    *client.Client
	saved client.Saved
	pin   func(ctx context.Context, phone string, since time.Time) (string, error) // nil: not on this machine
}

// open finds the deployment, opens the profile's device file and makes a client over both.
func (c *chatCmd) open(log *slog.Logger) (*device, error) {
	if !profileName.MatchString(c.As) {
		return nil, fmt.Errorf("profile %q (--as): letters, digits, dot, dash and underscore only", c.As)
	}
	var d device
	edges, ca := c.Edge, c.CA
	var dir string
	state, err := readDevState(c.Data)
	switch {
	case err == nil && (len(edges) == 0 || len(edges) == 1 && edges[0] == state.Edge):
		edges, dir = []string{state.Edge}, filepath.Join(c.Data, "devices")
		if ca == "" {
			ca = state.CA
		}
		d.pin = func(ctx context.Context, phone string, since time.Time) (string, error) {
			return waitPin(ctx, state.SMS, phone, since)
		}
	case len(edges) == 0:
		return nil, fmt.Errorf("no edge to connect to: %w; start it, or name an edge with --edge HOST:PORT", err)
	default:
		config, err := os.UserConfigDir()
		if err != nil {
			return nil, fmt.Errorf("directory of profiles: %w", err)
		}
		dir = filepath.Join(config, "heliograph")
	}
	tlsConf, err := trust(ca)
	if err != nil {
		return nil, err
	}
	store, err := client.OpenFileStore(filepath.Join(dir, c.As+".json"))
	if err != nil {
		if errors.Is(err, client.ErrLocked) {
			return nil, fmt.Errorf("profile %s is open in another process; choose another one with --as", c.As)
		}
		return nil, err
	}
	if d.saved, err = store.Load(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	d.cl, err = client.New(client.Config{
		Addrs: edges, TLS: tlsConf, Store: store, Name: "helio-chat", Logger: log,
		Region: cmp.Or(c.Region, localeRegion(os.Getenv("LC_ALL")), localeRegion(os.Getenv("LANG"))),
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &d, nil
}

// with runs do beside the client, and says in words what went wrong.
func (c *chatCmd) with(ctx context.Context, log *slog.Logger, do func(ctx context.Context, d *device) error) error {
	d, err := c.open(log)
	if err != nil {
		return err
	}
	// The client outlives the command's own context a little, so that what was read is told.
	run, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		err := d.cl.Run(run)
		if err != nil {
			cancel(err) // there is no way back: a device that was revoked
		}
		done <- err
	}()
	err = do(ctx, d)
	last, end := context.WithTimeout(ctx, chat.FlushTime)
	_ = d.cl.Flush(last) // they go out next time
	end()
	cause := context.Cause(ctx)
	stop(nil)
	if ended := <-done; ended != nil {
		err = ended
	}
	if cerr := d.cl.Close(); err == nil {
		err = cerr
	}
	if err != nil && (cause == nil || !errors.Is(cause, context.Canceled)) {
		return errors.New(chat.Words(err, time.Now()))
	}
	return nil
}

type chatOpenCmd struct {
	Phone string `help:"Phone number to begin the registration of a new profile with." placeholder:"NUMBER"`
	Log   string `help:"File for the client's log; default: none, since the screen is in use." placeholder:"FILE" type:"path"`
}

// Help shows how it is used.
func (chatOpenCmd) Help() string {
	return `Examples:
  helio chat --as ann
  helio chat --as ann open --phone "+49 1512 3456789" --log chat.log`
}

// Run shows the screen.
func (c *chatOpenCmd) Run(ctx context.Context, p *chatCmd) error {
	log := slog.New(slog.DiscardHandler)
	if c.Log != "" {
		f, err := os.OpenFile(c.Log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("log file (--log): %w", err)
		}
		defer func() { _ = f.Close() }() // a log's last line is worth no error
		log = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d, err := p.open(log)
	if err != nil {
		return err
	}
	err = chat.Run(ctx, chat.Config{
		Profile: p.As, Phone: c.Phone, Pin: d.pin, Outbox: d.saved.Outbox, Unsent: d.saved.Unsent,
	}, d.cl)
	return errors.Join(err, d.cl.Close())
}

type chatRegisterCmd struct {
	outputFlags
	Phone string `help:"Phone number in international form." required:"" placeholder:"NUMBER"`
	Pin   string `help:"The PIN of an SMS that came already; default: one is sent, and asked for here, or read by itself with 'helio dev' on this machine." placeholder:"DIGITS"`
	Name  string `help:"Display name." placeholder:"NAME"`
}

// Help shows how it is used.
func (chatRegisterCmd) Help() string {
	return `Examples:
  helio chat --as ann register --phone "+49 1512 3456789" --name Ann
  helio chat --as ann --edge chat.example.org:7443 --ca edge.pem register --phone "+49 1512 3456789"  (asks for the PIN)
  helio chat --as ann --edge chat.example.org:7443 register --phone "+49 1512 3456789" --pin 123456`
}

// awaitFound waits until others can find the number, which they do once the thread views have it: what a script does
// next may need that. It gives up after a while.
func (d *device) awaitFound(ctx context.Context, phone string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		if found, err := d.cl.Lookup(ctx, phone); err == nil && len(found) > 0 || !run.Sleep(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// Run registers.
func (c *chatRegisterCmd) Run(ctx context.Context, p *chatCmd, log *slog.Logger) error {
	return p.with(ctx, log, func(ctx context.Context, d *device) error {
		pin := d.pin
		if pin == nil {
			pin = askPin(os.Stdin, os.Stderr)
		}
		me, err := chat.SignUp(ctx, d.cl, client.Registration{Phone: c.Phone, Pin: c.Pin, Name: c.Name}, pin)
		if err != nil {
			return err
		}
		d.awaitFound(ctx, c.Phone)
		return c.print(struct {
			User   id.UserID   `json:"user"`
			Device id.DeviceID `json:"device"`
		}{me.User, me.Device}, table.Row{"user", "device"}, []table.Row{{me.User, me.Device}})
	})
}

// registered refuses what needs an identity at once, instead of waiting for one.
func (d *device) registered() error {
	if _, ok := d.cl.Identity(); !ok {
		return client.ErrNotRegistered
	}
	return nil
}

type chatSendCmd struct {
	outputFlags
	To      string        `arg:"" help:"Phone number with +, title of a group, name of a chat, or a thread's id."`
	Text    []string      `arg:"" optional:"" help:"What to say; default: what comes on standard input."`
	ReplyTo string        `help:"The message that this one answers: its id, or its author's and its own." placeholder:"[USER/]MESSAGE"`
	Timeout time.Duration `help:"Give up after so long; the message then stays in the outbox." default:"30s"`
}

// Help shows how it is used.
func (chatSendCmd) Help() string {
	return `Examples:
  helio chat --as ann send "+49 1518 7654321" "Are you there?"
  date | helio chat --as ann send "Sunday walk" -o json`
}

// Run sends.
func (c *chatSendCmd) Run(ctx context.Context, p *chatCmd, log *slog.Logger) error {
	return p.with(ctx, log, func(ctx context.Context, d *device) error {
		if err := d.registered(); err != nil {
			return err
		}
		text := strings.Join(c.Text, " ")
		if len(c.Text) == 0 {
			b, err := io.ReadAll(io.LimitReader(os.Stdin, thread.MaxText+1))
			if err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
			text = strings.TrimRight(string(b), "\n")
		}
		if strings.TrimSpace(text) == "" {
			return errors.New("nothing to say: give a text, or pipe one in")
		}
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		to, err := chat.Find(ctx, d.cl, c.To)
		if err != nil {
			return err
		}
		if c.ReplyTo != "" {
			if to.Reply, err = chat.Answered(ctx, d.cl, to.Thread, c.ReplyTo); err != nil {
				return fmt.Errorf("--reply-to: %w", err)
			}
		}
		m, ack, err := chat.Deliver(ctx, chat.SDK{Client: d.cl}, to, text)
		if err != nil {
			return err
		}
		slot := int32(ack.Slot)
		if slot < 0 { // the event came before its acknowledgement
			if v, err := d.cl.Views(ctx, to.Thread); err == nil {
				slot = v.GetSlot()
			}
		}
		return c.print(struct {
			Message  id.MessageID `json:"message"`
			Thread   id.ThreadID  `json:"thread"`
			Slot     int32        `json:"slot"`
			Position int64        `json:"position"`
			Time     time.Time    `json:"time"`
		}{m, to.Thread, slot, int64(ack.Position), ack.Time},
			table.Row{"message", "thread", "slot", "position"}, []table.Row{{m, to.Thread, slot, ack.Position}})
	})
}

type chatTailCmd struct {
	To       string `arg:"" optional:"" help:"Only this chat: phone number with +, title, name or thread's id."`
	Output   string `short:"o" help:"lines or json (an object a line)." enum:"lines,json" default:"lines"`
	Last     int    `short:"n" help:"Begin with so many of the chat's last events." default:"0"`
	Limit    int    `help:"End after so many lines; 0: go on until interrupted." default:"0"`
	Receipts bool   `help:"Show how far others have got, too."`
	Read     bool   `help:"Mark what is shown as read."`
}

// Help shows how it is used.
func (chatTailCmd) Help() string {
	return `Examples:
  helio chat --as bob tail
  helio chat --as bob tail "Sunday walk" -n 20 --receipts -o json`
}

// Run prints what comes in.
func (c *chatTailCmd) Run(ctx context.Context, p *chatCmd, log *slog.Logger) error {
	return p.with(ctx, log, func(ctx context.Context, d *device) error {
		if err := d.registered(); err != nil {
			return err
		}
		cfg := chat.TailConfig{Last: c.Last, Receipts: c.Receipts, Read: c.Read, Limit: c.Limit}
		if c.To != "" {
			to, err := chat.Find(ctx, d.cl, c.To)
			if err != nil {
				return err
			}
			cfg.Only = to.Thread
		}
		enc := json.NewEncoder(os.Stdout)
		enc.SetEscapeHTML(false)
		return chat.Tail(ctx, chat.SDK{Client: d.cl}, cfg, func(l chat.Line) error {
			if c.Output == "json" {
				return enc.Encode(l)
			}
			where := ""
			if l.Title != l.Name {
				where = " (" + l.Title + ")"
			}
			text := strings.ReplaceAll(chat.Clean(l.Text), "\n", "\n    ")
			at := l.Time
			if at.IsZero() {
				at = time.Now() // a receipt has no time of its own
			}
			_, err := fmt.Printf("%s %s%s: %s\n", at.Local().Format("2006-01-02 15:04:05"), l.Name, where, text)
			return err
		})
	})
}

type chatThreadsCmd struct {
	outputFlags
	N int `short:"n" help:"At most so many; 0: all." default:"0"`
}

// Help shows how it is used.
func (chatThreadsCmd) Help() string {
	return `Examples:
  helio chat --as bob threads
  helio chat --as bob threads -n 10 -o json`
}

// Run lists the threads.
func (c *chatThreadsCmd) Run(ctx context.Context, p *chatCmd, log *slog.Logger) error {
	return p.with(ctx, log, func(ctx context.Context, d *device) error {
		if err := d.registered(); err != nil {
			return err
		}
		list, err := chat.List(ctx, d.cl, c.N)
		if err != nil {
			return err
		}
		rows := make([]table.Row, 0, len(list))
		for _, r := range list {
			at := ""
			if !r.Time.IsZero() {
				at = r.Time.Local().Format("2006-01-02 15:04:05")
			}
			rows = append(rows, table.Row{r.Title, r.Kind, r.Unread, r.Count, at, r.Preview, r.Thread})
		}
		if list == nil {
			list = []chat.Row{}
		}
		return c.print(list, table.Row{"chat", "kind", "unread", "messages", "last", "preview", "thread"}, rows)
	})
}
