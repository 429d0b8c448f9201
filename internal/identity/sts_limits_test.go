package identity

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"pgregory.net/rapid"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
	"github.com/assay-build/assay/internal/testenv/awstest"
)

// keyOf is an access key id that seems to be of an account: anybody can make one.
func keyOf(account string, rest uint64) string {
	n, err := strconv.ParseUint(account, 10, 40)
	if err != nil {
		panic(err)
	}
	raw := binary.BigEndian.AppendUint64(nil, 1<<63|n<<23|rest&(1<<23-1))
	return "ASIA" + base32.StdEncoding.EncodeToString(append(raw, byte(rest>>24), byte(rest>>32)))
}

// forged is a proof that is right in all that can be told without AWS.
func (e *evilSTS) forged(tb testing.TB, account, buildID string) *stsproof.Proof {
	tb.Helper()
	nonce, _ := e.aws.Challenge()
	creds := aws.Credentials{AccessKeyID: keyOf(account, uint64(nonce[9])<<8|uint64(nonce[10])), SecretAccessKey: canarySecret, SessionToken: canaryToken}
	p, err := stsproof.Sign(context.Background(), creds, testRegion, testAudience, nonce, buildID, e.clock.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// The examples are of the people who found out: Tal Be'ery, Aidan Steele and others.
func TestKeyAccount(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"ASIAQNZGKIQY56JQ7WML":  "029608264753",
		"ASIAY34FZKBOKMUTVV7A":  "609629065308", // needs all of the forty bits
		"ASIAVJ2E6QGR2WZILJFM":  "364679954851",
		"ASIAR2TG44V5PDTTBZRR":  "125843596666",
		"AKIASP2TPHJSQH3FJXYZ":  "171436882533",
		"AKIAIOSFODNN7EXAMPLE":  "", // of before
		"ASIAJ4S7NXTZAEXAMPLE":  "",
		"ASIAAAAAAAAAAAAAAAAA":  "",
		"ASIAQNZGKIQY56JQ7WM":   "",
		"ASIAQNZGKIQY56JQ7WMLA": "",
		"ASIAQNZGKIQY56JQ7WM1":  "", // no base32
		"ASIA":                  "",
		"":                      "",
	} {
		if got := keyAccount(id); got != want {
			t.Errorf("%s: %q; want %q", id, got, want)
		}
	}
	e := newAWSEnv(t)
	for _, account := range []string{testAccount, "000000000001", "999999999999"} {
		a := e.world.Account(account)
		for _, creds := range []aws.Credentials{a.Role("deploy").Session("release"), a.User("alice")} {
			if got := keyAccount(creds.AccessKeyID); got != account {
				t.Errorf("a key of the stand-in, %s, is of %q; want %s", creds.AccessKeyID, got, account)
			}
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		account := fmt.Sprintf("%012d", rapid.Uint64Range(0, 999999999999).Draw(rt, "account"))
		if got := keyAccount(keyOf(account, rapid.Uint64().Draw(rt, "rest"))); got != account {
			rt.Fatalf("%s became %q", account, got)
		}
	})
}

func FuzzKeyAccount(f *testing.F) {
	f.Add("ASIAQNZGKIQY56JQ7WML")
	f.Add("AKIAIOSFODNN7EXAMPLE")
	f.Fuzz(func(t *testing.T, id string) {
		if got := keyAccount(id); got != "" && (len(got) < 12 || len(got) > 13) {
			t.Errorf("%q: %q", id, got)
		}
	})
}

// TestNonceAskedOnce: whatever STS says, one challenge costs one question.
func TestNonceAskedOnce(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]http.HandlerFunc{
		"an identity": answering(goodAnswer), "refused": status(403, ""), "throttled": status(429, ""), "away": status(503, ""),
	} {
		e := newEvilSTS(t)
		e.answer = answer
		p := e.forged(t, testAccount, "")
		_, first := e.aws.VerifyProof(t.Context(), p)
		if refusal.CodeOf(first) == CodeNonceUsed {
			t.Fatalf("%s: %v", name, first)
		}
		for range 3 {
			p.Signature[0]++ // another proof, of the same challenge
			p.AccessKeyID = keyOf(otherAccount, uint64(p.Signature[0]))
			_, err := e.aws.VerifyProof(t.Context(), p)
			wantCode(t, err, CodeNonceUsed)
		}
		if n := e.asked.Load(); n != 1 {
			t.Errorf("%s: STS was asked %d times", name, n)
		}
	}
}

// TestFloodOfOneChallenge: copies of a proof do not even wait.
func TestFloodOfOneChallenge(t *testing.T) {
	t.Parallel()
	e := newEvilSTS(t)
	g := newGate(e)
	p := e.forged(t, testAccount, "")
	var codes sync.Map
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			own := *p
			own.Signature = append([]byte{byte(i)}, p.Signature[1:]...)
			_, err := e.aws.VerifyProof(context.Background(), &own)
			n, _ := codes.LoadOrStore(refusal.CodeOf(err), new(atomic.Int64))
			if n.(*atomic.Int64).Add(1) == 63 {
				close(g.open) // all but the one that waits for it
			}
		})
	}
	wg.Wait()
	n, ok := codes.Load(CodeNonceUsed)
	if !ok || n.(*atomic.Int64).Load() != 63 || e.asked.Load() != 1 {
		t.Errorf("STS was asked %d times", e.asked.Load())
	}
}

// gate holds the questions to STS until it is opened, and answers them well.
type gate struct{ arrived, open chan struct{} }

func newGate(e *evilSTS) *gate {
	g := &gate{arrived: make(chan struct{}, 4096), open: make(chan struct{})}
	e.answer = func(w http.ResponseWriter, r *http.Request) {
		g.arrived <- struct{}{}
		<-g.open
		answering(goodAnswer)(w, r)
	}
	return g
}

// flood sends n proofs that wait for as long as g is closed.
func (e *evilSTS) flood(t *testing.T, n int, account string) (busy *atomic.Int64, done *sync.WaitGroup) {
	busy, done = new(atomic.Int64), new(sync.WaitGroup)
	for range n {
		p := e.forged(t, account, "")
		done.Go(func() {
			if _, err := e.aws.VerifyProof(context.Background(), p); refusal.CodeOf(err) == CodeSTSBusy {
				busy.Add(1)
			}
		})
	}
	return busy, done
}

// TestAnonymousSTSFlood: the review's flood, with a challenge for each proof. Keys of
// accounts that nobody configured are in the way of one another; keys that pretend to
// be of a configured one are in the way of that one, and of no other.
func TestAnonymousSTSFlood(t *testing.T) {
	t.Parallel()
	const limit = 8
	other := AWSAccount{ID: otherAccount, Regions: []string{testRegion}, AllowedRoles: []string{"reader"}}
	for name, c := range map[string]struct {
		account string
		held    int
	}{"strangers": {"999999999999", strangerSlots}, "another account": {otherAccount, limit / 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEvilSTS(t, func(cfg *AWSConfig) {
				cfg.MaxConcurrent = limit
				cfg.Accounts = append(cfg.Accounts, other)
			})
			g := newGate(e)
			// They would wait no longer than two seconds: here until they are let go.
			e.aws.slots.wait, e.aws.strangers.wait = time.Hour, time.Hour
			_, done := e.flood(t, 256, c.account)
			for range c.held {
				<-g.arrived
			}
			flooded := e.answer
			honest := make(chan error)
			e.answer = answering(goodAnswer)
			for range 4 {
				p := e.forged(t, testAccount, "")
				go func() { _, err := e.aws.VerifyProof(context.Background(), p); honest <- err }()
				if err := <-honest; err != nil {
					t.Errorf("an honest role: %v", err)
				}
			}
			if n := e.asked.Load(); n != int64(c.held+4) {
				t.Errorf("STS was asked %d times; the flood has %d slots", n, c.held)
			}
			e.answer = flooded
			close(g.open)
			done.Wait()
		})
	}
}

// TestSTSBusy: beyond the limit proofs wait in turn, for a while and not for ever, and
// one that waited in vain is as good as before.
func TestSTSBusy(t *testing.T) {
	t.Parallel()
	const limit = 4
	e := newEvilSTS(t, func(c *AWSConfig) { c.MaxConcurrent = limit })
	g := newGate(e)
	_, held := e.flood(t, limit, testAccount)
	for range limit {
		<-g.arrived
	}
	e.aws.slots.wait = 20 * time.Millisecond
	late := e.forged(t, testAccount, "")
	for range 3 {
		_, err := e.aws.VerifyProof(t.Context(), late)
		wantCode(t, err, CodeSTSBusy)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := e.aws.VerifyProof(gone, late)
	wantCode(t, err, CodeSTSBusy)
	e.aws.slots.wait = time.Hour
	busy, waiting := e.flood(t, 2*slotQueue*limit, testAccount)
	for busy.Load() < slotQueue*limit {
		// The lane is full: half of them are sent away at once.
		<-time.After(time.Millisecond)
	}
	close(g.open)
	held.Wait()
	waiting.Wait()
	if busy.Load() != slotQueue*limit {
		t.Errorf("%d of %d were sent away", busy.Load(), 2*slotQueue*limit)
	}
	if _, err := e.aws.VerifyProof(t.Context(), late); err != nil {
		t.Errorf("after the rush: %v", err)
	}
	if got := e.asked.Load(); got != limit+slotQueue*limit+1 {
		t.Errorf("STS was asked %d times", got)
	}
	if e.aws.slots.busy != 0 {
		t.Errorf("%d slots are still taken", e.aws.slots.busy)
	}
}

// TestProofConsumed: a nonce that has opened a session, be it on another machine,
// costs no question; where that cannot be told there is none either, and no session.
func TestProofConsumed(t *testing.T) {
	t.Parallel()
	var answer struct {
		used bool
		err  error
	}
	var keys []string
	e := newEvilSTS(t, func(c *AWSConfig) {
		c.Consumed = func(_ context.Context, key string) (bool, error) {
			keys = append(keys, key)
			return answer.used, answer.err
		}
	})
	e.answer = answering(goodAnswer)
	p := e.forged(t, testAccount, "")

	const codeStore refusal.Code = "STORE_AWAY"
	answer.err = refusal.New(codeStore, "no")
	for range 2 {
		v, err := e.aws.VerifyProof(t.Context(), p)
		if wantCode(t, err, codeStore); v != nil || !errors.Is(err, answer.err) {
			t.Errorf("%v %v", v, err)
		}
	}
	answer.err, answer.used = nil, true
	_, err := e.aws.VerifyProof(t.Context(), p)
	wantCode(t, err, CodeTokenReplayed)
	asked := len(keys)
	_, err = e.aws.VerifyProof(t.Context(), p)
	wantCode(t, err, CodeNonceUsed)
	if e.asked.Load() != 0 || len(keys) != asked {
		t.Errorf("STS was asked %d times, the store %d times more", e.asked.Load(), len(keys)-asked)
	}
	answer.used = false
	v, err := e.aws.VerifyProof(t.Context(), e.forged(t, testAccount, ""))
	if err != nil || keys[len(keys)-1] != v.ReplayKey {
		t.Errorf("%v; the store was asked for %q", err, keys)
	}
}

// TestBuildIDBeforeSTS: what is wrong with the name of a build costs no question.
func TestBuildIDBeforeSTS(t *testing.T) {
	t.Parallel()
	e := newEvilSTS(t, func(c *AWSConfig) {
		c.Builds = &builds{}
		c.Accounts = append(c.Accounts, AWSAccount{ID: otherAccount, Regions: []string{"eu-central-1"}})
	})
	e.answer = answering(identityJSON(testAccount, "arn:aws:sts::111122223333:assumed-role/codebuild-app/"+buildSession, "AROACKCEVSQ6C2EXAMPLE:"+buildSession))
	arn := func(partition, region, account string) string {
		return "arn:" + partition + ":codebuild:" + region + ":" + account + ":build/" + testBuildID
	}
	for _, tt := range []struct {
		id   string
		code refusal.Code
	}{
		{"app:x", codebuild.CodeBuildIDInvalid},
		{"app", codebuild.CodeBuildIDInvalid},
		{"a:build/" + testBuildID, codebuild.CodeBuildIDInvalid},
		{"arn:" + testBuildID, codebuild.CodeBuildIDInvalid},
		{arn("aws", "eu-central-1", testAccount), codebuild.CodeBuildIDInvalid},
		{arn("aws-cn", "cn-north-1", testAccount), codebuild.CodeBuildIDInvalid},
		{arn("aws", testRegion, "999999999999"), CodeAWSAccountNotAllowed},
		{arn("aws", testRegion, otherAccount), CodeAWSRegionNotAllowed},
	} {
		_, err := e.aws.VerifyProof(t.Context(), e.forged(t, testAccount, tt.id))
		if wantCode(t, err, tt.code); t.Failed() {
			t.Fatal(tt.id)
		}
	}
	if n := e.asked.Load(); n != 0 {
		t.Errorf("STS was asked %d times", n)
	}
	for _, id := range []string{testBuildID, arn("aws", testRegion, testAccount)} {
		if _, err := e.aws.VerifyProof(t.Context(), e.forged(t, testAccount, id)); refusal.CodeOf(err) == codebuild.CodeBuildIDInvalid || e.asked.Load() == 0 {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// slowBuilds is a BuildReader that answers when it is let.
type slowBuilds struct {
	builds
	arrived, open chan struct{}
}

func (b *slowBuilds) InJob(ctx context.Context, p codebuild.Proof) (*codebuild.Build, error) {
	b.arrived <- struct{}{}
	<-b.open
	return b.builds.InJob(ctx, p)
}

// TestBuildReadsAreBounded: the builds of one account are read few at a time.
func TestBuildReadsAreBounded(t *testing.T) {
	t.Parallel()
	e := newAWSEnv(t)
	reader := &slowBuilds{arrived: make(chan struct{}, 64), open: make(chan struct{})}
	a := e.verifier(t, func(c *AWSConfig) { c.Builds = reader })
	role := e.world.Account(testAccount).Role("codebuild-app", awstest.TrustService("codebuild.amazonaws.com"))
	var done sync.WaitGroup
	for range buildReads {
		p := e.proof(t, a, role.Session(buildSession), testBuildID)
		done.Go(func() { wantCode(t, second(a.VerifyProof(context.Background(), p)), "") })
	}
	for range buildReads {
		<-reader.arrived
	}
	a.reads.wait = 10 * time.Millisecond
	_, err := a.VerifyProof(t.Context(), e.proof(t, a, role.Session(buildSession), testBuildID))
	wantCode(t, err, codebuild.CodeUnavailable)
	close(reader.open)
	done.Wait()
	if a.reads.busy != 0 || a.slots.busy != 0 {
		t.Error("slots are still taken")
	}
}

func second[T any](_ T, err error) error { return err }

func TestUsedNonces(t *testing.T) {
	t.Parallel()
	c := newClock()
	nonce := func(n int) []byte {
		return binary.BigEndian.AppendUint64(make([]byte, stsproof.NonceBytes-8), uint64(n))
	}
	u := &usedNonces{life: time.Minute}
	use := func(n int, want bool) {
		t.Helper()
		if got := u.use(nonce(n), c.Now()); got != want {
			t.Errorf("nonce %d: %t; want %t", n, got, want)
		}
	}
	use(1, true)
	use(1, false)
	u.giveBack(nonce(1))
	use(1, true)
	c.Advance(59 * time.Second)
	use(2, true)
	c.Advance(58 * time.Second) // 2 is 58 s old, and in the old generation
	use(2, false)
	u.giveBack(nonce(2))
	use(2, true)
	// However many there are, memory is bounded, and the oldest go.
	for n := range 2 * maxUsedNonces {
		use(10+n, true)
		if len(u.young)+len(u.old) > maxUsedNonces {
			t.Fatalf("%d nonces are kept", len(u.young)+len(u.old))
		}
	}
	use(10+2*maxUsedNonces-1, false)
	use(10+2*maxUsedNonces-maxUsedNonces/2, false)
	use(2, true)
	c.Advance(-time.Hour) // a clock that was set back does not keep them for ever
	use(3, true)
	use(3, false)
}
