package server

import (
	"strings"
	"testing"
)

// TestByteCache: entries and bytes are both bounded, and no byte is lost count of.
func TestByteCache(t *testing.T) {
	c, err := newByteCache[string](4, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		add  string
		size int
		held string
		used int
	}{
		{"a", 40, "a", 40},
		{"b", 40, "ab", 80},
		{"a", 20, "ba", 60},  // in its own place, and the newest
		{"c", 41, "ac", 61},  // b goes for its bytes
		{"d", 101, "ac", 61}, // larger than everything
		{"c", 101, "a", 20},
		{"d", 1, "ad", 21},
		{"e", 1, "ade", 22},
		{"f", 1, "adef", 23},
		{"g", 1, "defg", 4}, // a goes for the number
		{"h", 100, "h", 100},
	} {
		c.add(step.add, step.add, step.size)
		if held := strings.Join(c.lru.Keys(), ""); held != step.held || c.used != step.used {
			t.Fatalf("after %s of %d: %s of %d bytes; want %s of %d", step.add, step.size, held, c.used, step.held, step.used)
		}
	}
	if v, ok := c.get("h"); !ok || v != "h" {
		t.Errorf("h is %q, %t", v, ok)
	}
	if _, ok := c.get("a"); ok {
		t.Error("a is still there")
	}
}
