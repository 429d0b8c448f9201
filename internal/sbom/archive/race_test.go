//go:build race

package archive

// raced: the race detector takes ten times as long, and memory of its own.
const raced = true
