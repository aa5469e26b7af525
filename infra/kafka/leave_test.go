package kafka

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"heliograph/schemas/topic"
)

// A group that waits for a member that went without a word does not hold back another that stops.
func TestStopWhileTheGroupWaits(t *testing.T) {
	_, cfg, cl := cluster(t)
	cc := consumerConfig(cfg)
	cc.Group, cc.InstanceID = "group", "stopping"
	phantom := kmsg.NewPtrJoinGroupRequest()
	phantom.Group, phantom.ProtocolType, phantom.InstanceID = cc.Group, "consumer", kmsg.StringPtr("phantom")
	phantom.SessionTimeoutMillis, phantom.RebalanceTimeoutMillis = 250_000, 250_000 // longer than this test may take
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name = kgo.CooperativeStickyBalancer().ProtocolName()
	protocol.Metadata = kgo.CooperativeStickyBalancer().JoinGroupMetadata([]string{cfg.Name(topic.Threads)}, nil, 0)
	phantom.Protocols = append(phantom.Protocols, protocol)
	res, err := phantom.RequestWith(t.Context(), cl)
	if err != nil || res.ErrorCode != 0 {
		t.Fatalf("the phantom's join: %v, code %d", err, res.ErrorCode)
	}

	c, err := NewConsumer(cc, &sink{store: newStore()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	state := func() string {
		req := kmsg.NewPtrDescribeGroupsRequest()
		req.Groups = []string{cc.Group}
		res, err := req.RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		return res.Groups[0].State
	}
	eventually(t, "the group waits for the phantom", func() bool { return state() == "PreparingRebalance" })
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("it is held back")
	}
}
