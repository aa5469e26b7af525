package replica_test

import (
	"testing"

	"heliograph/edge/replica"
	"heliograph/edge/replica/replicatest"
	"heliograph/infra/budget"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// What waits for a snapshot counts against the budget, gives way when others use the memory, and is given back
// however the waiting ends; nothing of it is lost.
func TestBacklogCountsAgainstTheBudget(t *testing.T) {
	for name, end := range map[string]func(b *bench, ann *ear){
		"the views come":   func(b *bench, _ *ear) { b.views(func(v *replicatest.Store) { v.Down = false }) },
		"the owner goes":   func(b *bench, _ *ear) { b.cluster.Give(0, "", 0) },
		"nobody follows":   func(b *bench, ann *ear) { b.replica.Unfollow(ann) },
		"there is no room": func(*bench, *ear) {},
	} {
		t.Run(name, func(t *testing.T) {
			memory := budget.New(1<<30, nil)
			inBench(t, replica.Config{Budget: memory}, func(t *testing.T, b *bench) {
				ann, d := b.follower(1)
				b.inSlot(0, ann.user)
				b.settle()
				b.views(func(v *replicatest.Store) { v.Down = true })
				late := id.NewGroup()
				for ; b.world.Slot(topic.Subject(late)) != 0; late = id.NewGroup() {
				}
				b.world.Create(late, ann.user)
				b.world.Join(late, -1, ann.user)
				b.settle()
				if name == "there is no room" {
					memory.Add(1 << 28)
				}
				for range 1000 {
					b.world.Send(late, ann.user, d, id.NewMessage(), id.UserID{})
				}
				b.settle()
				waiting, _ := b.replica.Memory()
				if name == "there is no room" {
					memory.Add(-1 << 28)
					if waiting > 64<<10 {
						t.Errorf("%d bytes wait although there is no room", waiting)
					}
					if b.replica.Drops() == 0 {
						t.Error("what was dropped is not counted")
					}
					b.views(func(v *replicatest.Store) { v.Down = false })
				} else if waiting < 100_000 || memory.Used() != waiting {
					t.Errorf("%d bytes wait, and %d are counted", waiting, memory.Used())
				}
				end(b, ann)
				for range 60 { // beyond Linger
					b.settle()
				}
				if memory.Used() != 0 {
					t.Errorf("%d bytes are counted at the end", memory.Used())
				}
				if v, known := b.replica.View(late); known && v.LastOrdinal != 1000 {
					t.Errorf("the thread has %d messages", v.LastOrdinal)
				}
			})
		})
	}
}
