package archive

// Limits bound what reading one artifact costs, nested archives included. A zero field
// stands for its default.
type Limits struct {
	// MaxEntries is how many members all archives together may have.
	MaxEntries int
	// MaxFileBytes bounds one member, MaxTotalBytes all that is unpacked.
	MaxFileBytes  int64
	MaxTotalBytes int64
	// MaxTempBytes bounds what lies on the temporary disk at one time, MaxMemory what
	// of members lies in memory, and MaxIndexBytes what names and places take.
	MaxTempBytes  int64
	MaxMemory     int64
	MaxIndexBytes int64
	// MaxRatio is how many times its packed size a stream may unpack to, and how many
	// times the size of the artifact all streams may. The first RatioFrom bytes are free:
	// small files of zeros compress a thousand times in good faith.
	MaxRatio  int64
	RatioFrom int64
	// MaxDepth is how deep archives may lie in each other; the artifact is at 1.
	MaxDepth int
	// MaxPathBytes bounds the name of a member.
	MaxPathBytes int
}

// DefaultLimits returns the limits that a server uses.
func DefaultLimits() Limits {
	return Limits{
		MaxEntries:    500_000,
		MaxFileBytes:  4 << 30,
		MaxTotalBytes: 16 << 30,
		MaxTempBytes:  4 << 30,
		MaxMemory:     64 << 20,
		MaxIndexBytes: 128 << 20,
		MaxRatio:      200,
		RatioFrom:     64 << 20,
		MaxDepth:      16,
		MaxPathBytes:  4 << 10,
	}
}

// orDefaults fills in what is not set.
func (l Limits) orDefaults() Limits {
	d := DefaultLimits()
	l.MaxEntries = or(l.MaxEntries, d.MaxEntries)
	l.MaxFileBytes = or(l.MaxFileBytes, d.MaxFileBytes)
	l.MaxTotalBytes = or(l.MaxTotalBytes, d.MaxTotalBytes)
	l.MaxTempBytes = or(l.MaxTempBytes, d.MaxTempBytes)
	l.MaxMemory = or(l.MaxMemory, d.MaxMemory)
	l.MaxIndexBytes = or(l.MaxIndexBytes, d.MaxIndexBytes)
	l.MaxRatio = or(l.MaxRatio, d.MaxRatio)
	l.RatioFrom = or(l.RatioFrom, d.RatioFrom)
	l.MaxDepth = or(l.MaxDepth, d.MaxDepth)
	l.MaxPathBytes = or(l.MaxPathBytes, d.MaxPathBytes)
	return l
}

func or[T int | int64](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
