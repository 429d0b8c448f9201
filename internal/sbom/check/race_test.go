//go:build race

package check

// raced: the race detector takes ten times as long, and memory of its own.
const raced = true
