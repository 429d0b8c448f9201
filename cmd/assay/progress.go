package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/assay-build/assay/client"
	"golang.org/x/term"
)

const (
	barWidth = 30
	// barEvery and lineEvery are how often progress is shown at most, on a
	// terminal and in a log.
	barEvery  = 100 * time.Millisecond
	lineEvery = 10 * time.Second
)

// progress shows how an attest goes: a bar that redraws itself on a terminal,
// plain lines elsewhere.
type progress struct {
	app       *app
	bar       bool
	artifacts int
	received  int
	shown     time.Time
	drawn     bool
}

func newProgress(a *app, artifacts int) *progress {
	f, ok := a.stderr.(*os.File)
	bar := ok && a.env("CI") == "" && a.env("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
	return &progress{app: a, bar: bar, artifacts: artifacts, shown: a.now()}
}

func (p *progress) event(e client.Event) {
	switch e.Stage {
	case client.StageSending:
		p.sending(e)
	case client.StageReceived:
		p.received++
		if !p.bar {
			p.app.message("received %s (%d of %d)", e.Name, p.received, p.artifacts)
		}
	case client.StageScanning:
		p.line("looking into what was received")
	case client.StageSigning:
		p.line("signing")
	case client.StageRegistered:
		p.line("registered in the log")
	case client.StageRetrying:
		p.received = 0
		p.line(fmt.Sprintf("starting over: %v", e.Err))
	}
}

// sending is called for each chunk; it shows some of them.
func (p *progress) sending(e client.Event) {
	every := lineEvery
	if p.bar {
		every = barEvery
	}
	now := p.app.now()
	if now.Sub(p.shown) < every {
		return
	}
	p.shown = now
	if !p.bar {
		p.app.message("sent %s%s", bytesOf(e.Sent), ofTotal(e.Total))
		return
	}
	p.drawn = true
	fmt.Fprintf(p.app.stderr, "\r%s %s%s  %s\x1b[K", drawBar(e.Sent, e.Total), bytesOf(e.Sent), ofTotal(e.Total), clip(clean(e.Name), 30))
}

func (p *progress) line(text string) {
	p.end()
	p.app.message("%s", text)
}

// end takes the bar off the screen.
func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.app.stderr, "\r\x1b[K")
		p.drawn = false
	}
}

func drawBar(sent, total int64) string {
	full := 0
	if total > 0 {
		full = int(float64(barWidth) * min(1, float64(sent)/float64(total)))
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "]"
}

func ofTotal(total int64) string {
	if total <= 0 {
		return ""
	}
	return " of " + bytesOf(total)
}
