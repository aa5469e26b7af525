package kafka

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestTakenInstanceEnds: a member whose place another process has taken is not ready, and ends with its reason when the
// other has kept the place for the session timeout; the other goes on.
func TestTakenInstanceEnds(t *testing.T) {
	_, cfg, cl := cluster(t)
	st := newStore()
	cc := consumerConfig(cfg)
	cc.Group, cc.InstanceID = "taken", "one"
	cc.SessionTimeout, cc.HeartbeatInterval = 500*time.Millisecond, 20*time.Millisecond
	first, err := NewConsumer(cc, &sink{store: st})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Ready(); err == nil {
		t.Error("ready before Run")
	}
	done := make(chan error, 1)
	go func() { done <- first.Run(t.Context()) }()
	eventually(t, "the first is ready", func() bool { return first.Ready() == nil && len(first.Owned()) == testSlots })
	heir, _ := start(t, cc, &sink{store: st})
	eventually(t, "the first says that it is out", func() bool {
		return errors.Is(first.Ready(), kerr.FencedInstanceID)
	})
	var taken *InstanceTakenError
	select {
	case err := <-done:
		if !errors.As(err, &taken) || taken.Instance != "one" || taken.For < cc.SessionTimeout {
			t.Errorf("the first ended with %v, want that its place is taken", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the first waits for ever")
	}
	n := produce(t, cl, cfg, 0, 3)
	eventually(t, "the heir has it all", func() bool { return st.count() == n && heir.Ready() == nil })
}

// TestReadyMeansMember: a consumer that its group does not take is not ready, one that has no slots because others have
// them all is, and one that has none while nobody has them is not.
func TestReadyMeansMember(t *testing.T) {
	fake, cfg, _ := cluster(t)
	cc := consumerConfig(cfg)
	cc.Group = "ready"
	var all []*Consumer
	for k := range testSlots + 1 {
		cc.InstanceID = fmt.Sprint(k)
		c, _ := start(t, cc, &sink{store: newStore()})
		all = append(all, c)
	}
	eventually(t, "all are ready, one without slots", func() bool {
		none, ready := 0, 0
		for _, c := range all {
			if len(c.Owned()) == 0 {
				none++
			}
			if c.Ready() == nil {
				ready++
			}
		}
		return none == 1 && ready == len(all)
	})
	fake.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		res := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		res.Groups = []kmsg.DescribeGroupsResponseGroup{{Group: "ready", State: "Stable", ProtocolType: "consumer"}}
		return res, nil, true
	})
	eventually(t, "the one without slots says that nobody has them", func() bool {
		for _, c := range all {
			if err := c.Ready(); len(c.Owned()) == 0 {
				return err != nil && strings.Contains(err.Error(), "4 of 4 slots have no owner")
			}
		}
		return false
	})

	fake.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		res := req.ResponseKind().(*kmsg.JoinGroupResponse)
		res.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return res, nil, true
	})
	cc.Group, cc.InstanceID = "other", "x"
	c, _ := start(t, cc, &sink{store: newStore()})
	eventually(t, "it says why it is no member", func() bool {
		return errors.Is(c.Ready(), kerr.GroupAuthorizationFailed)
	})
}
