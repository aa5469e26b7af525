package projector

import "container/list"

// Cache keeps the states that were used last, up to a total weight. It belongs to one goroutine.
type Cache[K comparable, V any] struct {
	limit  int
	weight func(V) int
	total  int
	order  *list.List // front: used last
	byKey  map[K]*list.Element
}

type cached[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

// NewCache returns a cache that holds values up to a total weight of limit.
func NewCache[K comparable, V any](limit int, weight func(V) int) *Cache[K, V] {
	return &Cache[K, V]{limit: limit, weight: weight, order: list.New(), byKey: make(map[K]*list.Element)}
}

// Get returns a value and makes it the one used last.
func (c *Cache[K, V]) Get(k K) (V, bool) {
	el, ok := c.byKey[k]
	if !ok {
		var zero V
		return zero, false
	}
	c.order.MoveToFront(el)
	return el.Value.(*cached[K, V]).value, true
}

// Put takes a value in, or weighs it anew, and drops those used longest ago while the weight is over the limit; the
// value itself may be among them.
func (c *Cache[K, V]) Put(k K, v V) {
	c.Drop(k)
	it := &cached[K, V]{key: k, value: v, weight: max(1, c.weight(v))}
	c.byKey[k] = c.order.PushFront(it)
	c.total += it.weight
	for c.total > c.limit {
		c.Drop(c.order.Back().Value.(*cached[K, V]).key)
	}
}

// Drop forgets a value.
func (c *Cache[K, V]) Drop(k K) {
	el, ok := c.byKey[k]
	if !ok {
		return
	}
	c.total -= el.Value.(*cached[K, V]).weight
	c.order.Remove(el)
	delete(c.byKey, k)
}

// Len is the number of values.
func (c *Cache[K, V]) Len() int { return c.order.Len() }

// Weight is their total weight.
func (c *Cache[K, V]) Weight() int { return c.total }
