package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// front is a listener whose connections hold responses back until the disk has what they show.
type front struct {
	net.Listener
	group *group
}

// Accept implements net.Listener.
func (f *front) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, group: f.group, closed: make(chan struct{})}, nil
}

// conn is a connection of a client, as the broker sees it. The broker reads from one goroutine, writes each response
// with one call of Write from another, and handles a connection's requests one after the other.
type conn struct {
	net.Conn
	group *group

	// Read's
	head []byte // of the request that is being read, until it is whole
	skip int    // how much of the request is still to come behind its head

	// Write's
	queue chan held // made by the first acknowledgement

	closing sync.Once
	closed  chan struct{}

	// guarded by mu
	mu   sync.Mutex
	open []request // read and not yet answered
}

// request is what of a request says how its response is to be read.
type request struct {
	key, version int16
	id           int32 // the correlation id
}

// held is a response that waits for a round; round may be nil.
type held struct {
	frame []byte
	round *round
}

// headLen is the length of a request's size, key, version and correlation id.
const headLen = 4 + 2 + 2 + 4

// queued is how many acknowledgements of a connection wait behind each other; then the broker waits, and reads no more
// from it. Clients have five in flight.
const queued = 16

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read(b[:n])
	return n, err
}

// read takes note of the requests that begin in what was read.
func (c *conn) read(b []byte) {
	for len(b) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(b))
			c.skip -= n
			b = b[n:]
			continue
		}
		n := min(headLen-len(c.head), len(b))
		c.head = append(c.head, b[:n]...)
		b = b[n:]
		if len(c.head) < headLen {
			return
		}
		c.mu.Lock()
		c.open = append(c.open, request{
			key:     int16(binary.BigEndian.Uint16(c.head[4:])),
			version: int16(binary.BigEndian.Uint16(c.head[6:])),
			id:      int32(binary.BigEndian.Uint32(c.head[8:])),
		})
		c.mu.Unlock()
		// A request that is shorter than its head is no request: the broker will say so.
		c.skip = max(0, int(binary.BigEndian.Uint32(c.head))-(headLen-4))
		c.head = c.head[:0]
	}
}

// answered takes out the request that a response belongs to, and those before it, which get none.
func (c *conn) answered(id int32) (request, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range c.open {
		if r.id == id {
			c.open = append(c.open[:0], c.open[i+1:]...)
			return r, true
		}
	}
	return request{}, false
}

// Write implements net.Conn. An acknowledgement waits in the connection's queue, so that the next request of the same
// client can join the same round; what has records waits here.
func (c *conn) Write(frame []byte) (int, error) {
	if len(frame) < 8 || int(binary.BigEndian.Uint32(frame)) != len(frame)-4 {
		return 0, errors.New("broker: a response is not written as one")
	}
	req, ok := c.answered(int32(binary.BigEndian.Uint32(frame[4:])))
	if !ok {
		return 0, errors.New("broker: a response without a request")
	}
	places, err := shown(req, frame[8:])
	if err != nil {
		return 0, err
	}
	r := c.group.join(places)
	if c.queue == nil && req.key == int16(kmsg.Produce) {
		c.queue = make(chan held, queued)
		go c.drain()
	}
	if c.queue == nil {
		if err := c.wait(r); err != nil {
			return 0, err
		}
		return c.Conn.Write(frame)
	}
	select {
	case c.queue <- held{frame: append([]byte(nil), frame...), round: r}: // the broker uses the frame again
		return len(frame), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

// drain writes the connection's responses in their order, each after its round, until the connection is closed.
func (c *conn) drain() {
	for {
		select {
		case h := <-c.queue:
			err := c.wait(h.round)
			if err == nil {
				_, err = c.Conn.Write(h.frame)
			}
			if err != nil {
				_ = c.Close() // the client learns that it does not know the outcome
				return
			}
		case <-c.closed:
			return
		}
	}
}

func (c *conn) wait(r *round) error {
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return r.err
	case <-c.closed:
		return net.ErrClosed
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closing.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// shown returns the places of which a response shows something that a power cut might take back: what was produced, and
// what was read or counted.
func shown(req request, body []byte) ([]place, error) {
	var resp kmsg.Response
	switch kmsg.Key(req.key) {
	case kmsg.Produce:
		resp = kmsg.NewPtrProduceResponse()
	case kmsg.Fetch:
		resp = kmsg.NewPtrFetchResponse()
	case kmsg.ListOffsets:
		resp = kmsg.NewPtrListOffsetsResponse()
	default:
		return nil, nil
	}
	resp.SetVersion(req.version)
	if resp.IsFlexible() { // the tags of the response's head, of which there are none
		if len(body) == 0 || body[0] != 0 {
			return nil, fmt.Errorf("broker: a response to %s has an unknown head", kmsg.NameForKey(req.key))
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("broker: read a response to %s: %w", kmsg.NameForKey(req.key), err)
	}
	var places []place
	switch resp := resp.(type) {
	case *kmsg.ProduceResponse:
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					at := where{topic: t.Topic, id: t.TopicID, partition: p.Partition}
					places = append(places, place{where: at, need: always, has: p.BaseOffset + 1})
				}
			}
		}
	case *kmsg.FetchResponse:
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if last, ok := lastBatch(p.RecordBatches); ok {
					at := where{topic: t.Topic, id: t.TopicID, partition: p.Partition}
					places = append(places, place{where: at, need: last + 1, has: max(last+1, p.HighWatermark)})
				}
			}
		}
	case *kmsg.ListOffsetsResponse:
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 && p.Offset > 0 {
					at := where{topic: t.Topic, partition: p.Partition}
					places = append(places, place{where: at, need: p.Offset, has: p.Offset})
				}
			}
		}
	}
	return places, nil
}

// lastBatch returns the offset that the last batch begins with: once the disk has a batch's beginning in a sync that
// came after it was written, it has the batch.
func lastBatch(b []byte) (offset int64, ok bool) {
	const head = 8 + 4 // offset and length
	for len(b) >= head {
		offset, ok = int64(binary.BigEndian.Uint64(b)), true
		n := head + int(binary.BigEndian.Uint32(b[8:]))
		if n > len(b) {
			break
		}
		b = b[n:]
	}
	return offset, ok
}
