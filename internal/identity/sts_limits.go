package identity

import (
	"context"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/assay-build/assay/internal/codebuild"
	"github.com/assay-build/assay/internal/refusal"
	"github.com/assay-build/assay/internal/stsproof"
)

// Anybody can send proofs, and what is wrong with most of them only STS can tell.
// This file keeps those that are worth nothing from costing those that are.

// CodeNonceUsed: STS was asked about this challenge already. A new one is needed.
const CodeNonceUsed refusal.Code = "STS_NONCE_USED"

const (
	// strangerSlots are the questions under way about keys that seem to be of no
	// configured account.
	strangerSlots = 2
	// buildReads are the builds of one account that are read at a time: each takes
	// some of the requests that AWS grants the account, to its own console as well.
	buildReads = 8
	// maxUsedNonces bounds the memory of usedNonces, about 4 MiB.
	maxUsedNonces = 1 << 16
)

// usedNonces remembers the challenges that STS was asked about, so that each is good
// for one question. That is no replay protection, which Sessions.Open is, for all
// machines of a deployment: it keeps one challenge from costing any number of them.
//
// There are two generations. When the young one is full, or as old as a challenge
// can be, it becomes the old one, which is forgotten: so what is kept has expired,
// or is the oldest.
type usedNonces struct {
	life time.Duration // of a challenge

	mu         sync.Mutex
	young, old map[[stsproof.NonceBytes]byte]struct{}
	turned     time.Time
}

// use reports whether nonce was not used before, and uses it.
func (u *usedNonces) use(nonce []byte, now time.Time) bool {
	key := [stsproof.NonceBytes]byte(nonce)
	u.mu.Lock()
	defer u.mu.Unlock()
	if age := now.Sub(u.turned); len(u.young) >= maxUsedNonces/2 || age < 0 || age >= u.life {
		u.old, u.young, u.turned = u.young, make(map[[stsproof.NonceBytes]byte]struct{}), now
	}
	_, young := u.young[key]
	_, old := u.old[key]
	if young || old {
		return false
	}
	u.young[key] = struct{}{}
	return true
}

// giveBack forgets a nonce of which no question came.
func (u *usedNonces) giveBack(nonce []byte) {
	key := [stsproof.NonceBytes]byte(nonce)
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.young, key)
	delete(u.old, key)
}

// checkBuildID refuses a build that no account of the configuration can have, which
// takes no network. The reader holds the id against the caller's own account.
func (a *AWS) checkBuildID(p *stsproof.Proof, partition string) error {
	if p.BuildID == "" {
		return nil
	}
	if a.builds == nil {
		return refusal.New(CodeCodeBuildNotConfigured, "this service reads no builds of CodeBuild").InField("build_id")
	}
	if !strings.HasPrefix(p.BuildID, "arn:") {
		// An id is the end of an ARN; which account it is in is not known yet.
		if _, err := codebuild.ParseBuildARN("arn:" + partition + ":codebuild:" + p.Region + ":000000000000:build/" + p.BuildID); err != nil {
			return refusal.New(codebuild.CodeBuildIDInvalid, "%.200q is not the id of a build, PROJECT:UUID", p.BuildID).InField("build_id")
		}
		return nil
	}
	arn, err := codebuild.ParseBuildARN(p.BuildID)
	if err != nil {
		return err
	}
	account, ok := a.accounts[awsAccountKey{arn.Partition, arn.Account}]
	switch {
	case arn.Partition != partition || arn.Region != p.Region:
		return refusal.New(codebuild.CodeBuildIDInvalid, "the build is in %s, the proof for %s", arn.Region, p.Region).InField("build_id")
	case !ok:
		return refusal.New(CodeAWSAccountNotAllowed, "account %s of partition %s is not configured", arn.Account, arn.Partition).InField("build_id")
	case !slices.Contains(account.Regions, p.Region):
		return refusal.New(CodeAWSRegionNotAllowed, "account %s may not use region %s", arn.Account, p.Region).InField("region")
	}
	return nil
}

// turn waits until STS may be asked about p. The account that p's key seems to be
// of is no more than a hint, which anybody can forge and AWS may stop giving: it
// decides where p waits, and never what becomes of it. Whoever knows no account of
// the configuration is kept out of the way of those who have one, and whoever knows
// one is in the way of that one only.
func (a *AWS) turn(ctx context.Context, p *stsproof.Proof, partition string) (release func(), ok bool) {
	key := awsAccountKey{partition, keyAccount(p.AccessKeyID)}
	if _, known := a.accounts[key]; known {
		return a.slots.take(ctx, key.lane())
	}
	return a.strangers.take(ctx, "")
}

func (k awsAccountKey) lane() string { return k.partition + "/" + k.id }

// keyIDBytes is the length of an access key id as AWS has made them since 2019.
const keyIDBytes = 20

// keyAccount returns the account that an access key id was made in, "" if it does not
// say. AWS documents that there is one, by sts:GetAccessKeyInfo, and not where it
// stands: behind the prefix of four, in base32, it is the forty bits after the first,
// which is set where they are an account. Ids from before, AKIAI and AKIAJ, have none.
func keyAccount(id string) string {
	if len(id) != keyIDBytes {
		return ""
	}
	raw, err := base32.StdEncoding.DecodeString(id[4:])
	if err != nil || len(raw) != 10 || raw[0]&0x80 == 0 { // the decoder skips line ends
		return ""
	}
	var n uint64
	for _, b := range raw[:6] {
		n = n<<8 | uint64(b)
	}
	return fmt.Sprintf("%012d", n>>7&(1<<40-1))
}

// notConsumed asks whether a credential has opened its session, before anything else
// is asked about it. Sessions.Open would say the same, but only afterwards: a token
// that is used up, and lies in a log for anybody to find, would go on to spend what
// other services grant to this one. Where it cannot be told, nothing is asked.
func notConsumed(ctx context.Context, consumed func(context.Context, string) (bool, error), replayKey string) error {
	if consumed == nil {
		return nil
	}
	switch used, err := consumed(ctx, replayKey); {
	case err != nil:
		return fmt.Errorf("look up the credential: %w", err)
	case used:
		return refusal.New(CodeTokenReplayed, "the credential has already opened a session")
	}
	return nil
}
