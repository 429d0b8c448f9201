// Package policy decides whether a caller may deploy an artifact to an
// environment, and explains the answer; and whether a caller may make a call at
// all. Both kinds of policy are written in Cedar, see the same facts of the caller,
// and have a schema, a set and a default of their own.
//
// # Deploy policies
//
// [Compile] turns their text into a [Set], which answers a [Question] with a
// [Decision]:
//
//	set, err := policy.Compile([]byte(policy.DefaultPolicy()))
//	d := set.Decide(policy.Question{
//		Principal:     policy.Principal{ID: "…", Kind: "github-actions", Issuer: "https://token.actions.githubusercontent.com"},
//		Environment:   "prod",
//		Subject:       attest.Subject{Name: "app", Digest: map[string]string{"sha256": "5f70bf18…"}},
//		Evidence:      evidence, // from package verify, and from nowhere else
//		Now:           now,
//		BuilderLevels: map[string]int{instance + "/builders/github-actions/github-hosted": 2},
//	})
//	if !d.Allowed {
//		fmt.Println(d.Code, d.Message)
//		// DENIED_BY_RULE prod needs SLSA Build level 2 or higher; found
//		// resource.provenance.slsaBuildLevel = 0; to mend it: …
//	}
//
// # What is judged
//
// Only [verify.Evidence]. Nothing outside package verify can make a valid one,
// and a single invalid one denies the question. Evidence becomes facts, the
// attributes of one Assay::Artifact entity (see [Schema]). A fact exists only
// where evidence for it does. The SLSA level is what the service knows of the
// builder, or less where the statement itself says why (a debug session, a shared
// cache), and counts only in evidence that the instance signed: anyone can write a
// builder.id. Parameters are read of the build types that docs/buildtypes defines,
// and of GitHub's; those of any other type mean nothing here.
//
// An artifact may have several provenance attestations. Each is judged alone, and
// one under which every rule agrees is enough. Facts are never mixed between
// them. docs/design/0003-policy-facts.md argues why.
//
// # What is promised
//
// Every answer is a denial unless the rules were evaluated over at least one
// provenance attestation, none of them ended in an error for any attestation, a
// permit applied and no forbid did. In particular:
//
//   - An error in any rule denies (POLICY_ERROR). Cedar by itself skips a rule that
//     errors, and so a forbid over a missing fact would not fire.
//   - Compile refuses what the schema does not know, an optional attribute without
//     a guard, and rules without @id and @message.
//   - Compile refuses a set that might allow an artifact without evidence, in any
//     environment, for any caller (POLICY_VACUOUS). Decide denies that case by
//     itself as well (NO_ATTESTATION).
//   - The order of the evidence does not matter, and evidence of builders the
//     service does not know never helps where rules ask for trusted provenance.
//
// # How it explains
//
// For every rule that can fire in the environment the answer says whether it is
// satisfied. For one that is not, its conjuncts are evaluated one by one: Expected
// holds those that failed, in Cedar, and Found the values they looked at. A forbid
// is turned round first, so that Expected always reads as what to reach.
//
// # Access
//
// [CompileAccess] turns an access policy into an [Access], which decides each call:
//
//	access, err := policy.CompileAccess([]byte(policy.DefaultAccess()))
//	d := access.Authorize(policy.AccessRequest{
//		Principal: principal,
//		Action:    "read",
//		Resource: policy.Resource{
//			Kind: "Attestation", ID: "5f70bf18…",
//			Attributes: map[string]string{"tenant": "https://github.com#583231"},
//		},
//	})
//	log.Info("access", "code", d.Code, "rules", d.Policies, "policy", d.Version)
//
// A call that may answer with many rows is decided upon the Instance first (list,
// search, export), and then upon each row (read): rows that may not be read are
// left out. Whatever the schema does not have, an action, a kind of resource, an
// attribute, is denied, and so is everything where one rule ends in an error.
// docs/design/0006-access-control.md argues why it is Cedar, and here.
package policy
