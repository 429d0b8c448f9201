package store

import "time"

// Attestation is one row of the register. All fields but Bundle are an index
// over it; the bundle alone is what a verifier needs.
type Attestation struct {
	// ID is the lower-case hex sha256 of the signed statement.
	ID             string
	PredicateType  string
	BuilderID      string
	BuildType      string
	InvocationID   string
	SLSABuildLevel int
	SourceURI      string
	SourceCommit   string
	// Principal says who attested, in the server's words: text made of ids, at most
	// 2 KiB, opaque to the store, equal for all that one tenant's project or role
	// attests. AttestationsBySHA256 takes turns by it. Empty where nothing is said.
	Principal string
	// Caller is opaque to the store: the caller's facts as identity wrote them, at
	// most MaxCallerBytes.
	Caller []byte
	// CreatedAt is kept to the microsecond.
	CreatedAt time.Time
	LogIndex  int64
	Bundle    []byte
	Subjects  []Subject
	// Detached are further signatures over the bundle's envelope, in the order in
	// which they were made.
	Detached []Detached
	// SBOM is what the component index keeps of the attestation, nil where it is no
	// SBOM. BeginAttestation makes it durable and CompleteAttestation makes it visible;
	// it is not read back, since the bundle has all.
	SBOM *SBOM
}

// Detached is a signature over the envelope of a bundle that is not part of it.
type Detached struct {
	// Kind says what it is, in the server's words.
	Kind string
	// KeyID names the key, as far as the kind has names for keys.
	KeyID     string
	Signature []byte
}

// Subject is an artifact an attestation speaks of.
type Subject struct {
	Name string
	// SHA256 and SHA512 are lower-case hex, or empty where not known.
	SHA256, SHA512 string
	// Kind and Origin are the numbers of the wire contract's enums.
	Kind, Origin int
	Size         int64
}

// Pending is an attestation whose envelope is durable and whose log entry may or
// may not exist yet. It is what recovery starts from.
type Pending struct {
	// ID is the lower-case hex sha256 of the signed statement.
	ID       string
	Envelope []byte
	// LogBody and LeafHash name the entry the log holds or is about to hold.
	LogBody, LeafHash []byte
	Timestamp         []byte
	// Certificate is the certificate of the key that signed the envelope, DER; nil where
	// the envelope names its key.
	Certificate []byte
	// Log is the id of the log that LogSizeBefore is about, nil in rows of versions that
	// knew one log only.
	Log []byte
	// LogSizeBefore is the size of the log before the entry was added: the entry,
	// if it exists, is at this index or later.
	LogSizeBefore uint64
	// Record is everything but the bundle and the log index. Its ID and CreatedAt
	// are those of the Pending.
	Record    *Attestation
	CreatedAt time.Time
}

// Decision is one answer, shared by all asks with the same key until it expires.
type Decision struct {
	ID string
	// Key is what makes two asks identical.
	Key         string
	SubjectName string
	// SHA256 is lower-case hex, or empty.
	SHA256        string
	Environment   string
	Passed        bool
	Reason        string
	Answer        []byte
	PolicyVersion string
	// Caller is whose question it was first, opaque to the store and at most
	// MaxCallerBytes; nil in rows of versions that did not keep it.
	Caller []byte
	// CreatedAt and ExpiresAt are kept to the microsecond.
	CreatedAt, ExpiresAt time.Time

	// LogHead is the tree of the log that the answer is registered in, nil where it
	// is not registered. It raises Store.LogHead and is not read back.
	LogHead *LogHead

	// AskCount and LastAskedAt are filled in when a decision is read and ignored
	// when it is saved. LastAskedAt is zero where nobody has asked.
	AskCount    int64
	LastAskedAt time.Time
}

// Ask is one time somebody asked and was given a decision.
type Ask struct {
	DecisionID string
	// Caller names who asked, as people read it.
	Caller string
	// At is kept to the microsecond.
	At time.Time
}

// Query asks for one page of a list.
type Query struct {
	// PageSize is 1 to 1000; 0 means 50.
	PageSize int
	// PageToken is what the page before returned, or empty for the first page. It
	// is good only for the list, filter and order it was made for.
	PageToken string
	Filter    string
	OrderBy   string
	// IncludeBundles also reads each attestation's bundle.
	IncludeBundles bool
}
