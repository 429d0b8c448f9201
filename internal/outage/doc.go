// Package outage keeps a service of somebody else from being asked in vain, too often or
// by too many at one time, and its callers from waiting for what will not come.
//
//	var breaker outage.Breaker            // one for whatever fails as one: a key, a host
//	places := make(outage.Places, 64)     // of all calls
//
//	func call(ctx context.Context) error {
//		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
//		defer cancel()
//		// Before the wait for a place, which may be long just because the service fails.
//		if wait, ok := breaker.Ready(now()); !ok {
//			return tryAgainIn(wait)
//		}
//		if err := places.Take(ctx); err != nil {
//			return err
//		}
//		defer places.Release()
//		pass, wait, ok := breaker.Enter(now())
//		if !ok {
//			return tryAgainIn(wait)
//		}
//		result := outage.Abandoned
//		defer func() {
//			if opened, _ := breaker.Leave(pass, now(), result); opened > 0 {
//				log.Error("not asked for a while", "wait", opened)
//			}
//		}()
//		err := ask(ctx)
//		result = judge(err)
//		return err
//	}
//
// # The breaker
//
// Closed, it lets every call through. After OpenAfter outages in a row it opens: for
// FirstPause nobody is let through. Then one call at a time is, the probe. If it fails,
// the breaker stays open for twice as long, up to LongestPause; if it is answered, the
// breaker closes.
//
// What is an outage is for the caller to say: a service that refuses, or answers
// nonsense, is there. A call whose caller goes away says nothing, and if it was the
// probe, the next call is. Of the calls that were under way when the breaker opened,
// those that fail change nothing and one that is answered closes it.
//
// The clock is the caller's. One that is set back makes no pause longer.
package outage
