package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/assay-build/assay/internal/refusal"
)

// CodePageTokenInvalid: the page token was not made by this server for this list,
// filter and order.
const CodePageTokenInvalid refusal.Code = "PAGE_TOKEN_INVALID"

// cursor is a place in a list: just after the row with this time and number.
type cursor struct{ at, seq int64 }

const (
	cursorBytes = 16
	tokenBytes  = cursorBytes + sha256.Size
)

// listing is what a page token is good for.
type listing struct{ kind, filter, order string }

// seal makes a page token: the cursor, and an HMAC over it and the listing. The
// listing is not in the token; the caller must name it again.
func (l listing) seal(key []byte, c cursor) string {
	b := make([]byte, 0, tokenBytes)
	b = binary.BigEndian.AppendUint64(b, uint64(c.at))
	b = binary.BigEndian.AppendUint64(b, uint64(c.seq))
	return base64.RawURLEncoding.EncodeToString(append(b, l.mac(key, b)...))
}

// open returns the cursor of a token that seal made for the same listing.
func (l listing) open(key []byte, token string) (cursor, error) {
	bad := refusal.New(CodePageTokenInvalid, "this token was not made for this list, filter and order; begin again without one").InField("page_token")
	if len(token) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return cursor{}, bad
	}
	// Strict: of the encodings of one token only the one that seal makes is taken.
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenBytes || !hmac.Equal(b[cursorBytes:], l.mac(key, b[:cursorBytes])) {
		return cursor{}, bad
	}
	return cursor{at: int64(binary.BigEndian.Uint64(b)), seq: int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

// mac is over each part with its length before it, so that no two listings share one.
func (l listing) mac(key, cursor []byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, part := range []string{"assay page token v1", l.kind, l.filter, l.order, string(cursor)} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}
