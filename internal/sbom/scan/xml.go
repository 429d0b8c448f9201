package scan

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// newXMLDecoder reads UTF-8 and the Latin-1 that old files are in.
func newXMLDecoder(data []byte) *xml.Decoder {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) {
		switch strings.ToLower(charset) {
		case "iso-8859-1", "latin1", "us-ascii", "ascii", "windows-1252", "cp1252":
			return &latin1Reader{in: in}, nil
		}
		return nil, fmt.Errorf("%w: character set %.40q", errUnsupported, charset)
	}
	return d
}

// latin1Reader turns ISO 8859-1 into UTF-8.
type latin1Reader struct {
	in   io.Reader
	rest []byte
}

func (l *latin1Reader) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		buf := make([]byte, 512)
		n, err := l.in.Read(buf)
		for _, b := range buf[:n] {
			l.rest = append(l.rest, string(rune(b))...)
		}
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}
