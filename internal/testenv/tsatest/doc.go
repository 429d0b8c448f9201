// Package tsatest is a timestamp authority of somebody else: RFC 3161 over HTTP, with
// a certificate chain of its own. It is honest until told to lie. It is for tests, and
// shares no code with what it tests: the tokens are written here.
//
//	tsa, err := tsatest.New(tsatest.Config{})
//	srv := httptest.NewServer(tsa)
//	root := tsa.Chain() // leaf, intermediate, root: what a trusted root lists
//	tsa.Fail(tsatest.WrongNonce)
//
// An honest answer embeds the leaf and the intermediate, names the leaf by hash in the
// signed attributes (RFC 5816), repeats the nonce, and says a whole second.
package tsatest

// Fault is one way in which an authority, or somebody between, is wrong.
type Fault int

const (
	// None is an honest answer.
	None Fault = iota

	// TwoLeaves is an honest token with a certificate of an untrusted issuer in front
	// of the leaf: a verifier that takes the first leaf looks at the wrong one.
	TwoLeaves
	// ForgedTwoLeaves is signed by an untrusted key under its own certificate, and the
	// true leaf is embedded too (CVE-2026-39984).
	ForgedTwoLeaves
	// OtherKey names the true leaf and is signed by another key.
	OtherKey
	// OtherAuthority is whole and in order, of an authority nobody trusts.
	OtherAuthority
	// FlippedSignature has one bit of the signature changed.
	FlippedSignature

	// The leaf certificate is the true key's and by the true issuer, but not fit for
	// timestamps: ChainFor returns the chain that a careless operator would trust.
	NoEKU
	NonCriticalEKU
	CodeSigningEKU
	// ExpiredChain has a leaf that ended an hour ago.
	ExpiredChain

	// WrongImprint is over other bytes.
	WrongImprint
	// OtherHash is over the SHA-512 of the same bytes: not what was asked for.
	OtherHash
	// WrongNonce and NoNonce are what a replay looks like.
	WrongNonce
	NoNonce
	// Replay gives the first answer again.
	Replay
	// TimeAhead and TimeBehind are an hour off, FractionalTime is to the millisecond,
	// which RFC 3161 allows and no Go verifier reads.
	TimeAhead
	TimeBehind
	FractionalTime
	// CriticalExtension has an extension in the TSTInfo that must be understood.
	CriticalExtension

	// Rejected, GrantedWithMods and NoToken are answers of the protocol.
	Rejected
	GrantedWithMods
	NoToken
	// FreeText is an honest answer with words beside the status, as some write it.
	FreeText

	// Garbage, BER, TrailingBytes and Truncated are not DER; Truncated says that it is
	// longer than it is. Huge goes on for ever.
	Garbage
	BER
	TrailingBytes
	Truncated
	Huge
	// HTML is a login page with status 200.
	HTML
	// Redirect sends the caller to the same authority under another path.
	Redirect
	// Status500, Status429 and Status403 are the answers of a web server.
	Status500
	Status429
	Status403
	// Hang reads the request and never answers. Slow answers a byte at a time.
	Hang
	Slow
	// Reset breaks the connection.
	Reset
	lastFault
)

// Faults returns every fault but None.
func Faults() []Fault {
	all := make([]Fault, 0, lastFault-1)
	for f := None + 1; f < lastFault; f++ {
		all = append(all, f)
	}
	return all
}

// String is the name of the constant.
func (f Fault) String() string {
	names := map[Fault]string{
		None: "None", TwoLeaves: "TwoLeaves", ForgedTwoLeaves: "ForgedTwoLeaves", OtherKey: "OtherKey",
		OtherAuthority: "OtherAuthority", FlippedSignature: "FlippedSignature", NoEKU: "NoEKU",
		NonCriticalEKU: "NonCriticalEKU", CodeSigningEKU: "CodeSigningEKU", ExpiredChain: "ExpiredChain",
		WrongImprint: "WrongImprint", OtherHash: "OtherHash", WrongNonce: "WrongNonce", NoNonce: "NoNonce",
		Replay: "Replay", TimeAhead: "TimeAhead", TimeBehind: "TimeBehind", FractionalTime: "FractionalTime",
		CriticalExtension: "CriticalExtension", Rejected: "Rejected", GrantedWithMods: "GrantedWithMods",
		NoToken: "NoToken", FreeText: "FreeText", Garbage: "Garbage", BER: "BER", TrailingBytes: "TrailingBytes",
		Truncated: "Truncated", Huge: "Huge", HTML: "HTML", Redirect: "Redirect", Status500: "Status500",
		Status429: "Status429", Status403: "Status403", Hang: "Hang", Slow: "Slow", Reset: "Reset",
	}
	return names[f]
}
